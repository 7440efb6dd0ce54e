// What can be done with a result.
import { mediaUrl } from "./api.js";
import { modelBy } from "./draft.js";
import { Icon } from "./icons.js";
import { html } from "./html.js";
import { promptOf, seedOf, startAgain, titleOf, useAsInput } from "./requests.js";
import { t } from "./text.js";

// One after another: a browser that is given all at once takes the last one alone.
const BETWEEN_MS = 300;

const linkOf = (output) => `${mediaUrl(output.url)}&download=1`;

function downloadAll(outputs) {
  outputs.forEach((output, at) => setTimeout(() => Object.assign(document.createElement("a"), { href: linkOf(output), download: "" }).click(), at * BETWEEN_MS));
}

// `isShort` where there is room for a word each: the rest is said all the same.
export function Actions({ job, output, place, isShort = false }) {
  const model = modelBy(job.model_id);
  const files = (job.outputs ?? []).filter(({ url }) => url);
  const isPicture = output?.url && !output.is_blanked && !job.type.endsWith("VIDEO");
  const seed = seedOf(job);
  const takesSeed = model?.parameters.properties.seed && seed !== undefined;
  return html`<div class="actions">
    ${output?.url && html`<a class="button primary" href=${linkOf(output)} download><${Icon} name="download" />${t("download")}</a>`}
    ${files.length > 1 && html`<button type="button" onClick=${() => downloadAll(files)}><${Icon} name="download" />${t("download.all", { n: files.length })}</button>`}
    ${isPicture && html`<${Action} name="use.edit" icon="use" isShort=${isShort} onClick=${() => useAsInput(job, place, "IMAGE_TO_IMAGE")} />
      <${Action} name="use.animate" icon="play" isShort=${isShort} onClick=${() => useAsInput(job, place, "IMAGE_TO_VIDEO")} />`}
    ${model && html`<${Action} name="again" icon="again" isShort=${isShort} onClick=${() => startAgain(job)} />`}
    ${takesSeed && html`<${Action} name="again.seed" icon="dice" isShort=${isShort} onClick=${() => startAgain(job, { seed })} />`}
  </div>`;
}

function Action({ name, icon, isShort, onClick }) {
  const whole = isShort ? t(name) : undefined;
  return html`<button type="button" aria-label=${whole} title=${whole} onClick=${onClick}><${Icon} name=${icon} />${isShort ? t(`${name}.short`) : t(name)}</button>`;
}

// In the history, where there is little room and one job beside the other. Of several files the dialog offers each.
export function QuickActions({ job, output }) {
  const nameOf = (word) => `${t(word)}: ${promptOf(job) || titleOf(job)}`;
  return html`<div class="quick-actions">
    ${output && job.outputs.length === 1 && html`<a class="button bare" href=${linkOf(output)} download aria-label=${nameOf("download")} title=${t("download")}><${Icon} name="download" /></a>`}
    ${modelBy(job.model_id) && html`<button type="button" class="bare" aria-label=${nameOf("again")} title=${t("again")} onClick=${() => startAgain(job)}><${Icon} name="again" /></button>`}
  </div>`;
}
