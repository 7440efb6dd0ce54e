// What can be done with a result.
import { mediaUrl } from "./api.js";
import { modelBy } from "./draft.js";
import { Icon } from "./icons.js";
import { html } from "./html.js";
import { promptOf, seedOf, startAgain, titleOf, useAsInput } from "./requests.js";
import { t } from "./text.js";

const linkOf = (output) => `${mediaUrl(output.url)}&download=1`;

// What is not wanted often is in the dialog alone.
export function Actions({ job, output, place, isShort = false }) {
  const model = modelBy(job.model_id);
  const isPicture = output?.url && !output.is_blanked && !job.type.endsWith("VIDEO");
  const seed = seedOf(job);
  const takesSeed = !isShort && model?.parameters.properties.seed && seed !== undefined;
  return html`<div class="actions">
    ${output?.url && html`<a class="button primary" href=${linkOf(output)} download><${Icon} name="download" />${t("download")}</a>`}
    ${model && html`<button type="button" onClick=${() => startAgain(job)}><${Icon} name="again" />${t("again")}</button>`}
    ${takesSeed && html`<button type="button" onClick=${() => startAgain(job, { seed })}><${Icon} name="dice" />${t("again.seed")}</button>`}
    ${isPicture && html`<button type="button" onClick=${() => useAsInput(job, place, "IMAGE_TO_IMAGE")}><${Icon} name="use" />${t("use.edit")}</button>
      <button type="button" onClick=${() => useAsInput(job, place, "IMAGE_TO_VIDEO")}><${Icon} name="play" />${t("use.animate")}</button>`}
  </div>`;
}

// In the history, where there is little room and one job beside the other. Of several files the dialog offers each.
export function QuickActions({ job, output }) {
  const nameOf = (word) => `${t(word)}: ${promptOf(job) || titleOf(job)}`;
  return html`<div class="quick-actions">
    ${output && job.outputs.length === 1 && html`<a class="button bare" href=${linkOf(output)} download aria-label=${nameOf("download")} title=${t("download")}><${Icon} name="download" /></a>`}
    ${modelBy(job.model_id) && html`<button type="button" class="bare" aria-label=${nameOf("again")} title=${t("again")} onClick=${() => startAgain(job)}><${Icon} name="again" /></button>`}
  </div>`;
}
