// A job as one sees it: while it waits and runs, what came of it, and why nothing did.
import { mediaUrl } from "./api.js";
import { Actions } from "./actions.js";
import { modelBy } from "./draft.js";
import { OWN_OUTPUT } from "./drop.js";
import { Icon } from "./icons.js";
import { html, useState } from "./html.js";
import { FINAL, put } from "./jobs.js";
import { Elapsed, Progress, goOn, say } from "./parts.js";
import { timeRange } from "./models.js";
import { promptOf, startAgain, titleOf } from "./requests.js";
import { giveUp } from "./runs.js";
import { mine } from "./session.js";
import { explain, explainJob, has, secondsRange, t, tokens } from "./text.js";

export const open = (job, place = 0) => { location.hash = `#/job/${job.job_id}/${place}`; };
export function UnsentCard({ item, stage }) {
  return html`<article class=${stage ? "tile working newest" : "tile working"} data-run=${item.id} style=${stage}><div class="stage"><p class="state">${item.trouble ? t("run.unsent") : t("run.sending")}</p>
      ${item.trouble && html`<p class="hint">${t(item.isGivenUp ? "run.giving_up" : "run.unsent.hint")}</p>`}<progress aria-label=${t("run.sending")} />
      ${item.trouble && !item.isGivenUp && html`<button type="button" class="cancel" onClick=${() => giveUp(item)}>${t("run.give_up")}</button>`}</div>
    <p class="caption">${item.body.prompt}</p></article>`;
}

// `stage` is the shape of the place above the others: what stands there has it from the start to the end.
export function JobCard({ job, stage }) {
  if (job.status === "COMPLETED") return html`<${stage ? Newest : Result} job=${job} stage=${stage} />`;
  if (FINAL.has(job.status)) return html`<${Failure} job=${job} stage=${stage} />`;
  return html`<${Working} job=${job} stage=${stage} />`;
}

function Result({ job }) {
  const outputs = job.outputs ?? [];
  return html`<article class=${outputs.length > 1 ? "tile several" : "tile"} data-run=${job.job_id}>
    <div class="stage">${outputs.map((output, place) => html`<${Thumbnail} key=${place} job=${job} output=${output} place=${place} />`)}
      ${!outputs.length && html`<button type="button" class="thumb" onClick=${() => open(job)}>${t("output.none")}</button>`}</div>
    <${Caption} job=${job} />
  </article>`;
}

// With all its files, one of them large, and what can be done with it next.
function Newest({ job, stage }) {
  const [chosen, setChosen] = useState(0);
  const outputs = job.outputs ?? [];
  const place = Math.min(chosen, Math.max(0, outputs.length - 1));
  return html`<article class="tile newest" data-run=${job.job_id} style=${stage}>
    <div class="stage">${outputs.length ? html`<${Thumbnail} key=${place} job=${job} output=${outputs[place]} place=${place} />`
      : html`<button type="button" class="thumb" onClick=${() => open(job)}>${t("output.none")}</button>`}</div>
    ${outputs.length > 1 && html`<ul class="frames">${outputs.map((output, at) => html`<li key=${at}><button type="button" class="frame" aria-pressed=${at === place} aria-label=${t("output.show", { n: at + 1 })}
      onClick=${() => setChosen(at)}><${Media} job=${job} output=${output} isStill=${true} /></button></li>`)}</ul>`}
    <${Caption} job=${job} />
    <${Actions} job=${job} output=${outputs[place]} place=${place} isShort=${true} />
  </article>`;
}

function Thumbnail({ job, output, place }) {
  const label = `${t("output.open", { n: place + 1 })}: ${promptOf(job) || titleOf(job)}`;
  const onDragStart = (event) => event.dataTransfer.setData(OWN_OUTPUT, `output:${job.job_id}/${place}`);
  return html`<button type="button" class="thumb" aria-label=${label} draggable=${!isFilm(job, output)} onDragStart=${onDragStart} onClick=${() => open(job, place)}><${Media} job=${job} output=${output} /></button>`;
}

const isFilm = (job, output) => (output.content_type ?? "").startsWith("video/") || job.type.endsWith("VIDEO");

function Media({ job, output, isStill = false }) {
  const [isBroken, setBroken] = useState(false);
  const url = mediaUrl(output.url);
  if (!url) return html`<span class="gone">${t(`output.${output.deleted_because ?? "gone"}`)}</span>`;
  if (output.is_blanked) return html`<span class="gone">${t("output.blanked")}</span>`;
  if (isBroken) return html`<span class="gone">${t("output.broken")}</span>`;
  if (!isFilm(job, output)) return html`<img src=${url} alt="" loading="lazy" decoding="async" onError=${() => setBroken(true)} />`;
  return html`<video src=${url} preload="metadata" muted playsinline loop tabindex="-1" aria-hidden="true" onError=${(event) => goOn(event) || setBroken(true)}
      onMouseEnter=${(event) => !isStill && event.target.play().catch(() => {})} onMouseLeave=${(event) => event.target.pause()} />${!isStill && html`<span class="play"><${Icon} name="play" /></span>`}`;
}

function Caption({ job, isChargeTold = false }) {
  const prompt = promptOf(job);
  const refunded = job.billing?.refunded_tokens ?? 0;
  return html`<p class="caption"><span class="prompt" title=${prompt}>${prompt || titleOf(job)}</span>
    <span class="aside">${titleOf(job)}${!isChargeTold && html` · <span class="number">${tokens(job.billing?.charged_tokens ?? job.cost_tokens)}</span>
      ${refunded > 0 && html` · ${t("billing.back", { tokens: tokens(refunded) })}`}`}</span></p>`;
}

export function remaining(range) {
  return Math.round(range.to) > 0 ? t("run.eta", { time: secondsRange(range) }) : t("run.overdue");
}

function Working({ job, stage }) {
  const eta = job.eta_seconds;
  const expected = expectedOf(job);
  const why = whyOf(job);
  return html`<article class=${stage ? "tile working newest" : "tile working"} data-run=${job.job_id} style=${stage} aria-busy="true">
    <div class="stage">
      <p class="state">${t(`status.${job.status}`)}</p>
      ${why && html`<p class="why">${why}</p>`}
      <p class="aside"><${Elapsed} since=${job.created_at} />${eta ? html` · ${remaining(eta)}` : expected ? html` · ${t("run.typical", { time: timeRange(modelBy(job.model_id)?.typical_seconds) })}` : ""}</p>
      <${Progress} job=${job} expected=${expected} label=${t("run.progress", { title: titleOf(job) })} />
      <${CancelButton} job=${job} />
    </div>
    <${Caption} job=${job} />
  </article>`;
}

export function expectedOf(job) {
  if (job.eta_seconds) return (Date.now() - Date.parse(job.created_at)) / 1000 + job.eta_seconds.from;
  return modelBy(job.model_id)?.typical_seconds?.to;
}

export function whyOf(job) {
  // What runs waits for nothing.
  if (job.status === "IN_PROGRESS") return "";
  const parts = [];
  // Of what is at the provider the state has said so, and while it is handed over there is no reason yet.
  const isTold = job.status === "QUEUED" && (job.waiting_for !== "provider" || job.status_reason);
  if (isTold && has(`waiting.${job.waiting_for}`)) parts.push(t(`waiting.${job.waiting_for}`));
  if (job.queue_position === 0) parts.push(t("run.next"));
  else if (job.queue_position) parts.push(t("run.position", { n: job.queue_position }));
  if (!parts.length && job.status_reason) parts.push(job.status_reason);
  return parts.join(" ");
}

export function CancelButton({ job }) {
  const [isAsking, setAsking] = useState(false);
  if (FINAL.has(job.status)) return null;
  const cancel = async (event) => {
    event.stopPropagation();
    setAsking(true);
    try {
      put([await mine("POST", `/generations/${job.job_id}/cancel`)]);
    } catch (error) {
      if (error.status !== 400) say(explain(error), "bad");
    }
    setAsking(false);
  };
  // Not disabled: that would take the focus away from whoever has just pressed it.
  const isCanceling = isAsking || job.status === "CANCELING";
  return html`<button type="button" class="cancel" aria-disabled=${isCanceling} onClick=${isCanceling ? undefined : cancel}>${isCanceling ? t("run.canceling") : t("cancel")}</button>`;
}

// Why, what was paid, and what to do: as much as a failure needs.
export function failureOf(job) {
  if (job.status === "CANCELED") return t("job.canceled");
  return explainJob(job);
}

function Failure({ job, stage }) {
  const kind = job.status === "CANCELED" ? "tile canceled" : "tile failed";
  return html`<article class=${stage ? `${kind} newest` : kind} data-run=${job.job_id} style=${stage}><button type="button" class="stage" onClick=${() => open(job)}>
      <span class="state">${t(`status.${job.status}`)}</span>
      ${job.status === "FAILED" && html`<span class="why">${failureOf(job)}</span>`}
      ${job.billing && html`<span class="free">${chargeOf(job.billing)}</span>`}
    </button>
    <${Caption} job=${job} isChargeTold=${true} />
    ${modelBy(job.model_id) && html`<p><button type="button" onClick=${() => startAgain(job)}>${t("again")}</button></p>`}</article>`;
}

export function chargeOf({ charged_tokens: charged, refunded_tokens: refunded }) {
  if (!charged) return t("billing.nothing", { tokens: tokens(refunded) });
  return refunded ? t("billing.part", { charged: tokens(charged), refunded: tokens(refunded) }) : t("billing.all", { charged: tokens(charged) });
}

