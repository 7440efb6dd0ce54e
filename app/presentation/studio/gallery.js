// A job as one sees it: while it waits and runs, what came of it, and why nothing did.
import { mediaUrl } from "./api.js";
import { Actions } from "./actions.js";
import { modelBy } from "./draft.js";
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
export function UnsentCard({ item }) {
  return html`<article class="tile working"><div class="stage"><p class="state">${item.trouble ? t("run.unsent") : t("run.sending")}</p>
      ${item.trouble && html`<p class="hint">${t(item.isGivenUp ? "run.giving_up" : "run.unsent.hint")}</p>`}<progress aria-label=${t("run.sending")} />
      ${item.trouble && !item.isGivenUp && html`<button type="button" class="cancel" onClick=${() => giveUp(item)}>${t("run.give_up")}</button>`}</div>
    <p class="caption">${item.body.prompt}</p></article>`;
}

// The newest result is large, with what can be done next.
export function JobCard({ job, isLarge }) {
  if (job.status === "COMPLETED") return html`<${Result} job=${job} isLarge=${isLarge} />`;
  if (FINAL.has(job.status)) return html`<${Failure} job=${job} />`;
  return html`<${Working} job=${job} />`;
}

function Result({ job, isLarge }) {
  const outputs = job.outputs ?? [];
  return html`<article class=${["tile", outputs.length > 1 && "several", isLarge && "large"].filter(Boolean).join(" ")}>
    <div class="stage">${outputs.map((output, place) => html`<${Thumbnail} key=${place} job=${job} output=${output} place=${place} />`)}
      ${!outputs.length && html`<button type="button" class="thumb" onClick=${() => open(job)}>${t("output.none")}</button>`}</div>
    <${Caption} job=${job} />
    ${isLarge && outputs.length === 1 && html`<${Actions} job=${job} output=${outputs[0]} place=${0} isShort=${true} />`}
  </article>`;
}

function Thumbnail({ job, output, place }) {
  const [isBroken, setBroken] = useState(false);
  const url = mediaUrl(output.url);
  const label = `${t("output.open", { n: place + 1 })}: ${promptOf(job) || titleOf(job)}`;
  const isVideo = (output.content_type ?? "").startsWith("video/") || job.type.endsWith("VIDEO");
  const onDragStart = (event) => event.dataTransfer.setData("application/x-tollgate-input", `output:${job.job_id}/${place}`);
  let inside;
  if (!url) inside = html`<span class="gone">${t(`output.${output.deleted_because ?? "gone"}`)}</span>`;
  else if (output.is_blanked) inside = html`<span class="gone">${t("output.blanked")}</span>`;
  else if (isBroken) inside = html`<span class="gone">${t("output.broken")}</span>`;
  else if (isVideo) inside = html`<video src=${url} preload="metadata" muted playsinline loop tabindex="-1" aria-hidden="true" onError=${(event) => goOn(event) || setBroken(true)}
      onMouseEnter=${(event) => event.target.play().catch(() => {})} onMouseLeave=${(event) => event.target.pause()} /><span class="play"><${Icon} name="play" /></span>`;
  else inside = html`<img src=${url} alt="" loading="lazy" decoding="async" onError=${() => setBroken(true)} />`;
  return html`<button type="button" class="thumb" aria-label=${label} draggable=${!isVideo} onDragStart=${onDragStart} onClick=${() => open(job, place)}>${inside}</button>`;
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

function Working({ job }) {
  const eta = job.eta_seconds;
  const expected = expectedOf(job);
  return html`<article class="tile working" aria-busy="true">
    <div class="stage">
      <p class="state">${t(`status.${job.status}`)}</p>
      <p class="why">${whyOf(job)}</p>
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
  // Of what is at the provider the state has said so.
  if (job.status === "QUEUED" && has(`waiting.${job.waiting_for}`)) parts.push(t(`waiting.${job.waiting_for}`));
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

function Failure({ job }) {
  return html`<article class="tile failed"><button type="button" class="stage" onClick=${() => open(job)}>
      <span class="state">${t(`status.${job.status}`)}</span>
      <span class="why">${failureOf(job)}</span>
      ${job.billing && html`<span class="free">${chargeOf(job.billing)}</span>`}
    </button>
    <${Caption} job=${job} isChargeTold=${true} />
    ${modelBy(job.model_id) && html`<p><button type="button" onClick=${() => startAgain(job)}>${t("again")}</button></p>`}</article>`;
}

export function chargeOf({ charged_tokens: charged, refunded_tokens: refunded }) {
  if (!charged) return t("billing.nothing", { tokens: tokens(refunded) });
  return refunded ? t("billing.part", { charged: tokens(charged), refunded: tokens(refunded) }) : t("billing.all", { charged: tokens(charged) });
}

