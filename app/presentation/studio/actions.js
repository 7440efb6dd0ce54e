// What can be done with a result.
import { mediaUrl } from "./api.js";
import { modelBy } from "./draft.js";
import { Icon } from "./icons.js";
import { html } from "./html.js";
import { seedOf, startAgain, useAsInput } from "./requests.js";
import { t } from "./text.js";

// What is not wanted often is in the dialog alone.
export function Actions({ job, output, place, isShort = false }) {
  const model = modelBy(job.model_id);
  const isPicture = output?.url && !output.is_blanked && !job.type.endsWith("VIDEO");
  const seed = seedOf(job);
  const takesSeed = !isShort && model?.parameters.properties.seed && seed !== undefined;
  return html`<div class="actions">
    ${output?.url && html`<a class="button primary" href=${`${mediaUrl(output.url)}&download=1`} download><${Icon} name="download" />${t("download")}</a>`}
    ${model && html`<button type="button" onClick=${() => startAgain(job)}><${Icon} name="again" />${t("again")}</button>`}
    ${takesSeed && html`<button type="button" onClick=${() => startAgain(job, { seed })}><${Icon} name="dice" />${t("again.seed")}</button>`}
    ${isPicture && html`<button type="button" onClick=${() => useAsInput(job, place, "IMAGE_TO_IMAGE")}><${Icon} name="use" />${t("use.edit")}</button>
      <button type="button" onClick=${() => useAsInput(job, place, "IMAGE_TO_VIDEO")}><${Icon} name="play" />${t("use.animate")}</button>`}
  </div>`;
}
