// All jobs, newest first. Only the rows that are in sight are on the page, however many there are.
import { mediaUrl } from "./api.js";
import { failureOf, open, promptOf, titleOf, whyOf } from "./gallery.js";
import { Icon } from "./icons.js";
import { html, useEffect, useMemo, useRef, useState } from "./html.js";
import { FINAL, jobs, loadMore } from "./jobs.js";
import { Empty, Segments } from "./parts.js";
import { TYPES } from "./schema.js";
import { useStore } from "./store.js";
import { moment, t, tokens } from "./text.js";

const ROW = 76;
const BEYOND = 6;
const STATES = {
  all: () => true,
  running: (job) => !FINAL.has(job.status),
  done: (job) => job.status === "COMPLETED",
  failed: (job) => job.status === "FAILED" || job.status === "CANCELED",
};

export function History() {
  const { byId, order, isLoaded, hasMore, isLoadingMore, revision } = useStore(jobs);
  const [state, setState] = useState("all");
  const [type, setType] = useState("");
  const [wanted, setWanted] = useState("");
  const found = useMemo(() => order.map((id) => byId.get(id)).filter((job) => fits(job, state, type, wanted.trim().toLowerCase())), [revision, state, type, wanted]);
  const list = useRef(null);
  const range = useRange(list, found.length);
  useEffect(() => {
    // Also where a filter leaves little of what is there.
    if (hasMore && !isLoadingMore && range.to >= found.length - BEYOND * 2) loadMore();
  }, [range.to, found.length, hasMore, isLoadingMore]);
  const isFiltered = state !== "all" || type || wanted;
  return html`<main class="history" id="main">
    <div class="row between head"><h1>${t("nav.history")}</h1><span class="aside number" role="status">${hasMore ? t("history.so_far", { n: found.length }) : t("history.count", { n: found.length })}</span></div>
    <div class="filters row" role="search">
      <${Segments} label=${t("history.state")} name="state" value=${state} onChange=${setState} options=${Object.keys(STATES).map((name) => [name, t(`history.${name}`)])} />
      <select aria-label=${t("type.label")} onChange=${(event) => setType(event.target.value)}><option value="">${t("history.types")}</option>${TYPES.map((one) => html`<option key=${one} value=${one} selected=${one === type}>${t(`type.${one}`)}</option>`)}</select>
      <input type="search" aria-label=${t("history.search")} placeholder=${t("history.search")} value=${wanted} onInput=${(event) => setWanted(event.target.value)} />
    </div>
    ${!isLoaded ? html`<div aria-hidden="true">${[1, 2, 3, 4, 5].map((one) => html`<div key=${one} class="skeleton row-box" />`)}</div>`
      : found.length === 0 && !hasMore ? html`<${Empty} title=${isFiltered ? t("history.none") : t("results.empty")}>
          ${isFiltered ? html`<button type="button" onClick=${() => { setState("all"); setType(""); setWanted(""); }}>${t("history.reset")}</button>` : html`<a class="button primary" href="#/create">${t("history.first")}</a>`}<//>`
      : html`<ul class="rows" ref=${list} style=${{ height: `${found.length * ROW}px` }}>
        ${found.slice(range.from, range.to).map((job, at) => html`<li key=${job.job_id} aria-setsize=${hasMore ? -1 : found.length} aria-posinset=${range.from + at + 1} style=${{ top: `${(range.from + at) * ROW}px` }}><${Row} job=${job} /></li>`)}
      </ul>`}
    ${isLoadingMore && html`<div class="skeleton row-box" aria-hidden="true" />`}
  </main>`;
}

function fits(job, state, type, wanted) {
  if (!STATES[state](job) || (type && job.type !== type)) return false;
  return !wanted || [promptOf(job), titleOf(job), job.model_id, job.job_id, job.fal_request_id ?? ""].some((text) => text.toLowerCase().includes(wanted));
}

function useRange(list, count) {
  const [range, setRange] = useState({ from: 0, to: 30 });
  useEffect(() => {
    const look = () => {
      if (!list.current) return;
      const above = -list.current.getBoundingClientRect().top;
      const from = Math.max(0, Math.floor(above / ROW) - BEYOND);
      const to = Math.min(count, Math.ceil((above + window.innerHeight) / ROW) + BEYOND);
      setRange((before) => (before.from === from && before.to === to ? before : { from, to }));
    };
    look();
    window.addEventListener("scroll", look, { passive: true });
    window.addEventListener("resize", look);
    return () => {
      window.removeEventListener("scroll", look);
      window.removeEventListener("resize", look);
    };
  }, [count]);
  return range;
}

function Row({ job }) {
  const output = job.outputs?.find(({ url, is_blanked: isBlanked }) => url && !isBlanked);
  const isPicture = output && !job.type.endsWith("VIDEO");
  const text = promptOf(job) || titleOf(job);
  const detail = job.status === "COMPLETED" ? "" : FINAL.has(job.status) ? failureOf(job) : whyOf(job);
  return html`<button type="button" class="row-box" onClick=${() => open(job)}>
    <span class="row-picture">${isPicture ? html`<img src=${mediaUrl(output.url)} alt="" loading="lazy" decoding="async" />` : html`<${Icon} name=${job.type.endsWith("VIDEO") ? "play" : "image"} />`}</span>
    <span class="row-text"><span class="prompt">${text}</span><span class="aside">${titleOf(job)} · ${moment(job.created_at)}${detail && html` · <span class="why">${detail}</span>`}</span></span>
    <span class=${`badge status-${job.status}`}>${t(`status.${job.status}`)}</span>
    <span class="number cost">${tokens(job.billing?.charged_tokens ?? job.cost_tokens)}</span>
  </button>`;
}
