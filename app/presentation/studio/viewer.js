// One job at full size: its files, its cost and why, and what can be done with it next.
import { mediaUrl } from "./api.js";
import { Code, lineName, lineSum } from "./create.js";
import { again, draft, modelBy, modelsOf } from "./draft.js";
import { CancelButton, chargeOf, expectedOf, failureOf, isToldWhole, open, promptOf, remaining, requestOf, startAgain, titleOf, whyOf } from "./gallery.js";
import { Icon } from "./icons.js";
import { html, useEffect, useState } from "./html.js";
import { FINAL, jobs, loadJob } from "./jobs.js";
import { Copy, Dialog, Elapsed, Problem, Progress, Sure, say } from "./parts.js";
import { mayGenerate, mine } from "./session.js";
import { useStore } from "./store.js";
import { bytes, explain, moment, seconds, t, tokens } from "./text.js";

// What fails again so soon is broken, and not over.
const LOADED_ANEW_MS = 10_000;

export function Viewer({ id, place, onClose }) {
  const { byId } = useStore(jobs);
  const [error, setError] = useState(null);
  const job = byId.get(id);
  useEffect(() => {
    loadJob(id).catch(setError);
  }, [id]);
  return html`<${Dialog} title=${job ? titleOf(job) : t("job")} onClose=${onClose} isWide=${true}>
    ${job ? html`<${Job} job=${job} place=${place} />` : error ? html`<${Problem} error=${error} />` : html`<div class="skeleton tile" aria-hidden="true" />`}
  <//>`;
}

function Job({ job, place }) {
  const outputs = job.outputs ?? [];
  const output = outputs[place];
  const turn = (to) => outputs.length > 1 && open(job, (to + outputs.length) % outputs.length);
  const onKeyDown = (event) => {
    if (event.target.matches("input, textarea, video, summary, pre")) return;
    if (event.key === "ArrowLeft") turn(place - 1);
    if (event.key === "ArrowRight") turn(place + 1);
  };
  return html`<div class="viewer" onKeyDown=${onKeyDown}>
    <div class="viewer-media">
      ${output ? html`<${Media} key=${output.url} output=${output} prompt=${promptOf(job)} isVideo=${job.type.endsWith("VIDEO")} />` : html`<${State} job=${job} />`}
      ${outputs.length > 1 && html`<div class="row center turn">
        <button type="button" class="bare" aria-label=${t("output.before")} onClick=${() => turn(place - 1)}><${Icon} name="left" /></button>
        <span class="number">${t("output.of", { n: place + 1, all: outputs.length })}</span>
        <button type="button" class="bare" aria-label=${t("output.after")} onClick=${() => turn(place + 1)}><${Icon} name="right" /></button></div>`}
    </div>
    <div class="viewer-side"><${Actions} job=${job} output=${output} place=${place} /><${Facts} job=${job} output=${output} /></div>
  </div>`;
}

function Media({ output, prompt, isVideo }) {
  const [isLarge, setLarge] = useState(false);
  const url = mediaUrl(output.url);
  if (!url) return html`<p class="gone">${t(`output.${output.deleted_because ?? "gone"}`)}</p>`;
  if (output.is_blanked) return html`<p class="gone">${t("output.blanked")}</p>`;
  const type = output.content_type ?? "";
  if (type.startsWith("video/") || (isVideo && !type)) return html`<video src=${url} controls autoplay loop playsinline aria-label=${prompt} onError=${goOn} />`;
  if (type.startsWith("audio/")) return html`<audio src=${url} controls aria-label=${prompt} onError=${goOn} />`;
  return html`<button type="button" class=${isLarge ? "zoom large" : "zoom"} aria-label=${isLarge ? t("zoom.out") : t("zoom.in")} onClick=${() => setLarge(!isLarge)}><img src=${url} alt=${prompt || t("output.picture")} /></button>`;
}

// Of a film that a bucket serves the player holds a link for a minute: loaded anew, the service gives it another one.
function goOn({ target }) {
  const at = target.currentTime;
  if (!target.duration || Date.now() - (target.loadedAnewAt ?? 0) < LOADED_ANEW_MS) return;
  target.loadedAnewAt = Date.now();
  target.autoplay = !target.paused;
  target.load();
  target.currentTime = at;
}

function State({ job }) {
  const isFinal = FINAL.has(job.status);
  return html`<div class="state-box" role="status"><p class="state">${t(`status.${job.status}`)}</p>
    <p>${isFinal ? failureOf(job) : whyOf(job)}</p>
    ${isFinal && job.error_message && !job.error_message.startsWith(failureOf(job)) && html`<p class="hint">${job.error_message}</p>`}
    ${isFinal && job.billing && html`<p class="free">${chargeOf(job.billing)}</p>`}
    ${!isFinal && html`<p class="aside"><${Elapsed} since=${job.created_at} />${job.eta_seconds && html` · ${remaining(job.eta_seconds)}`}</p><${Progress} job=${job} expected=${expectedOf(job)} label=${t("run.progress", { title: titleOf(job) })} /><${CancelButton} job=${job} />`}
  </div>`;
}

export const seedOf = (job) => job.result?.seed ?? job.result?.seeds?.[0];

function Actions({ job, output, place }) {
  const model = modelBy(job.model_id);
  const useAsInput = (type) => {
    const target = draft.get().type === type ? draft.get().model : modelsOf(type).find(({ is_default: isDefault }) => isDefault) ?? modelsOf(type)[0];
    const name = `output:${job.job_id}/${place}`;
    const { image_url: _, image_urls: __, ...values } = draft.get().values;
    again({ type, model: target, values: { ...values, image_url: name, image_urls: [name] } });
    location.hash = "#/create";
  };
  const erase = async () => {
    try {
      await mine("DELETE", `/generations/${job.job_id}/media`);
      await loadJob(job.job_id);
    } catch (error) {
      say(explain(error), "bad");
    }
  };
  const isPicture = output?.url && !output.is_blanked && !job.type.endsWith("VIDEO");
  const seed = seedOf(job);
  const takesSeed = model?.parameters.properties.seed && seed !== undefined;
  return html`<div class="actions">
    ${output?.url && html`<a class="button" href=${`${mediaUrl(output.url)}&download=1`} download><${Icon} name="download" />${t("download")}</a>`}
    ${model && html`<button type="button" onClick=${() => startAgain(job)}><${Icon} name="again" />${t("again")}</button>`}
    ${takesSeed && html`<button type="button" onClick=${() => startAgain(job, { seed })}><${Icon} name="dice" />${t("again.seed")}</button>`}
    ${isPicture && html`<button type="button" onClick=${() => useAsInput("IMAGE_TO_IMAGE")}><${Icon} name="use" />${t("use.edit")}</button>
      <button type="button" onClick=${() => useAsInput("IMAGE_TO_VIDEO")}><${Icon} name="play" />${t("use.animate")}</button>`}
    ${output?.url && mayGenerate() && html`<${Sure} label=${t("output.delete")} onSure=${erase} />`}
  </div>`;
}

function Facts({ job, output }) {
  const request = requestOf(job);
  const expanded = job.result?.actual_prompt;
  const seed = seedOf(job);
  const rows = [
    ["fact.prompt", request.body.prompt],
    ["fact.expanded", expanded !== request.body.prompt ? expanded : null],
    ["fact.model", html`${titleOf(job)} <code>${job.model_id}</code>`],
    ["fact.size", output?.width ? `${output.width} × ${output.height}${output.duration_seconds ? ` · ${t("seconds", { n: Math.round(output.duration_seconds) })}` : ""}${output.size_bytes ? ` · ${bytes(output.size_bytes)}` : ""}` : null],
    ["fact.seed", seed === undefined ? null : html`<span class="number">${String(seed)}</span>`],
    ["fact.when", FINAL.has(job.status) ? html`${moment(job.created_at)} · ${t("fact.took")} <${Elapsed} since=${job.created_at} until=${job.updated_at} />` : moment(job.created_at)],
    ["fact.kept", output?.url ? moment(output.expires_at) : null],
    ["fact.job", html`<code>${job.job_id}</code>`],
    ["fact.request", job.fal_request_id && html`<code>${job.fal_request_id}</code>`],
  ];
  return html`
    <${Bill} job=${job} />
    <dl class="facts">${rows.filter(([, value]) => value).map(([name, value]) => html`<div key=${name}><dt>${t(name)}</dt><dd>${value}</dd></div>`)}</dl>
    <details class="code-box"><summary>${t("code")}</summary>
      ${!isToldWhole(job) && html`<p class="hint">${t("code.partial")}</p>`}<${Code} request=${request} />
    </details>
    <details class="answer-box"><summary>${t("answer")}</summary><${Answer} job=${job} /></details>`;
}

function Answer({ job }) {
  const { isOfEvent: _, ...told } = job;
  const text = JSON.stringify(told, null, 2);
  return html`<div class="code-lines"><div class="row between"><strong>JSON</strong><${Copy} text=${text} label=${t("copy")} /></div><pre tabindex="0" role="region" aria-label="JSON">${text}</pre></div>`;
}

function Bill({ job }) {
  const refunds = new Map((job.billing?.lines ?? []).map((line) => [line.line, line.refunded_tokens]));
  return html`<dl class="lines bill">
    ${(job.price ?? []).map((line) => html`<div key=${line.line}><dt>${lineName(line)} <span class="aside">${lineSum(line)}</span></dt>
      <dd class="number">${tokens(line.tokens)}${refunds.get(line.line) ? html`<br /><span class="free">− ${tokens(refunds.get(line.line))}</span>` : ""}</dd></div>`)}
    ${job.billing && html`<div class="total"><dt>${chargeOf(job.billing)}</dt><dd class="number">${tokens(job.billing.charged_tokens)}</dd></div>`}
  </dl>`;
}
