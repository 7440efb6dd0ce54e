// One job at full size: its files, its cost and why, and what can be done with it next.
import { mediaUrl } from "./api.js";
import { Code, lineName, lineSum } from "./create.js";
import { Actions } from "./actions.js";
import { chosenOf, filterOf, foundOf } from "./filters.js";
import { CancelButton, chargeOf, expectedOf, failureOf, remaining, whyOf } from "./gallery.js";
import { Icon } from "./icons.js";
import { html, useEffect, useState } from "./html.js";
import { FINAL, jobs, loadJob, loadMore } from "./jobs.js";
import { Copy, Dialog, Elapsed, Problem, Progress, Sure, goOn, say } from "./parts.js";
import { place as where, turnTo } from "./place.js";
import { isToldWhole, promptOf, requestOf, seedOf, titleOf } from "./requests.js";
import { mayGenerate, mine } from "./session.js";
import { useStore } from "./store.js";
import { bytes, explain, moment, seconds, t, tokens } from "./text.js";

const NEAR = 10;

export function Viewer({ id, place, onClose }) {
  const { byId } = useStore(jobs);
  const [error, setError] = useState(null);
  const job = byId.get(id);
  useEffect(() => {
    setError(null);
    loadJob(id).catch(setError);
  }, [id]);
  const onKeyDown = (event) => {
    if (!job || event.target.matches("input, textarea, video, audio, summary, pre")) return;
    if (event.key === "ArrowLeft") turn(job, place - 1);
    if (event.key === "ArrowRight") turn(job, place + 1);
  };
  return html`<${Dialog} title=${job ? titleOf(job) : t("job")} onClose=${onClose} onKeyDown=${onKeyDown} isWide=${true}>
    ${job ? html`<${Job} job=${job} place=${place} />` : error ? html`<${Problem} error=${error} />` : html`<div class="skeleton tile" aria-hidden="true" />`}
  <//>`;
}

// To the next file of the job, and from its last one to the job that stands behind it where this one was opened.
function turn(job, to) {
  const count = (job.outputs ?? []).length;
  if (to >= 0 && to < count) return turnTo(job, to);
  const { under } = where.get();
  const chosen = chosenOf(under.name === "history" ? under.query : "");
  const around = foundOf(chosen);
  const next = to < 0 ? around.findLast(({ job_id: id }) => id > job.job_id) : around.find(({ job_id: id }) => id < job.job_id);
  // As by scrolling to the end of the list.
  if (to > 0 && (!next || around.indexOf(next) > around.length - NEAR)) loadMore(filterOf(chosen));
  return next && turnTo(next, to < 0 ? Math.max(0, (next.outputs ?? []).length - 1) : 0);
}

function Job({ job, place }) {
  const outputs = job.outputs ?? [];
  const output = outputs[place];
  return html`<div class="viewer">
    <div class="viewer-media">
      ${output ? html`<${Media} key=${output.url} output=${output} prompt=${promptOf(job)} isVideo=${job.type.endsWith("VIDEO")} />` : html`<${State} job=${job} />`}
      ${outputs.length > 1 && html`<div class="row center turn">
        <button type="button" class="bare" aria-label=${t("output.before")} disabled=${!place} onClick=${() => turn(job, place - 1)}><${Icon} name="left" /></button>
        <span class="number">${t("output.of", { n: place + 1, all: outputs.length })}</span>
        <button type="button" class="bare" aria-label=${t("output.after")} disabled=${place === outputs.length - 1} onClick=${() => turn(job, place + 1)}><${Icon} name="right" /></button></div>`}
    </div>
    <div class="viewer-side"><${Actions} job=${job} output=${output} place=${place} /><${Facts} job=${job} output=${output} />
      ${output?.url && mayGenerate() && html`<${Erase} job=${job} />`}</div>
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

function State({ job }) {
  const isFinal = FINAL.has(job.status);
  return html`<div class="state-box" role="status"><p class="state">${t(`status.${job.status}`)}</p>
    <p>${isFinal ? failureOf(job) : whyOf(job)}</p>
    ${isFinal && job.billing && html`<p class="free">${chargeOf(job.billing)}</p>`}
    ${!isFinal && html`<p class="aside"><${Elapsed} since=${job.created_at} />${job.eta_seconds && html` · ${remaining(job.eta_seconds)}`}</p><${Progress} job=${job} expected=${expectedOf(job)} label=${t("run.progress", { title: titleOf(job) })} /><${CancelButton} job=${job} />`}
  </div>`;
}

function Erase({ job }) {
  const erase = async () => {
    try {
      await mine("DELETE", `/generations/${job.job_id}/media`);
      await loadJob(job.job_id);
    } catch (error) {
      say(explain(error), "bad");
    }
  };
  return html`<p><${Sure} label=${t("output.delete")} onSure=${erase} /></p>`;
}

function Facts({ job, output }) {
  const request = requestOf(job);
  const expanded = job.result?.actual_prompt;
  const seed = seedOf(job);
  const rows = [
    ["fact.prompt", request.body.prompt, request.body.prompt],
    ["fact.expanded", expanded !== request.body.prompt ? expanded : null],
    ["fact.model", html`${titleOf(job)} <code>${job.model_id}</code>`],
    ["fact.size", output?.width ? `${output.width} × ${output.height}${output.duration_seconds ? ` · ${t("seconds", { n: Math.round(output.duration_seconds) })}` : ""}${output.size_bytes ? ` · ${bytes(output.size_bytes)}` : ""}` : null],
    ["fact.seed", seed === undefined ? null : html`<span class="number">${String(seed)}</span>`, String(seed)],
    ["fact.when", FINAL.has(job.status) ? html`${moment(job.created_at)} · ${t("fact.took")} <${Elapsed} since=${job.created_at} until=${job.updated_at} />` : moment(job.created_at)],
    ["fact.kept", output?.url ? moment(output.expires_at) : null],
    ["fact.job", html`<code>${job.job_id}</code>`, job.job_id],
    ["fact.request", job.fal_request_id && html`<code>${job.fal_request_id}</code>`, job.fal_request_id],
  ];
  return html`
    <${Bill} job=${job} />
    <div><details class="code-box"><summary>${t("code")}</summary>
      ${!isToldWhole(job) && html`<p class="hint">${t("code.partial")}</p>`}<${Code} request=${request} />
    </details>
    <details class="answer-box"><summary>${t("answer")}</summary><${Answer} job=${job} /></details></div>
    <dl class="facts">${rows.filter(([, value]) => value).map(([name, value, copied]) => html`<div key=${name}><dt>${t(name)}</dt><dd>${value}${copied && html`<${Copy} text=${copied} label=${t("copy")} isShort=${true} />`}</dd></div>`)}</dl>`;
}

function Answer({ job }) {
  const { isOfEvent: _, ...told } = job;
  const text = JSON.stringify(told, null, 2);
  return html`<div class="code-lines"><div class="row between"><strong>JSON</strong><${Copy} text=${text} label=${t("copy")} /></div><pre tabindex="0" role="region" aria-label="JSON">${text}</pre></div>`;
}

function Bill({ job }) {
  const price = job.price ?? [];
  const { billing } = job;
  const refunds = new Map((billing?.lines ?? []).map((line) => [line.line, line.refunded_tokens]));
  // One line that was charged as it stands is its own sum.
  const isAllOfIt = price.length === 1 && !billing?.refunded_tokens;
  const isPart = billing?.refunded_tokens > 0 && billing.charged_tokens > 0;
  return html`<dl class="lines bill">
    ${price.map((line) => html`<div key=${line.line}><dt>${lineName(line)} <span class="aside">${lineSum(line)}</span></dt>
      <dd class="number">${tokens(line.tokens)}${refunds.get(line.line) ? html`<br /><span class="free">${t("billing.back", { tokens: tokens(refunds.get(line.line)) })}</span>` : ""}</dd></div>`)}
    ${billing && !isAllOfIt && html`<div class="total"><dt>${t("billing.total")}${isPart && html` <span class="aside">${t("billing.total.part")}</span>`}</dt><dd class="number">${tokens(billing.charged_tokens)}</dd></div>`}
  </dl>`;
}
