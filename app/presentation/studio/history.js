// All jobs, newest first. Only the rows that are in sight are on the page, however many there are.
import { mediaUrl } from "./api.js";
import { catalogue } from "./draft.js";
import { failureOf, open, whyOf } from "./gallery.js";
import { Icon } from "./icons.js";
import { html, useEffect, useMemo, useRef, useState } from "./html.js";
import { FINAL, jobs, loadMore, walkOf } from "./jobs.js";
import { Empty, Segments } from "./parts.js";
import { promptOf, titleOf } from "./requests.js";
import { TYPES } from "./schema.js";
import { useStore } from "./store.js";
import { moment, t, tokens } from "./text.js";

// As the style sheet has it, in letters of the size that the user has chosen.
const ROW = 6 * parseFloat(getComputedStyle(document.documentElement).fontSize);
const BEYOND = 6;
const STATES = {
  all: [],
  running: ["QUEUED", "SUBMITTED", "IN_QUEUE", "IN_PROGRESS", "CANCELING"],
  done: ["COMPLETED"],
  failed: ["FAILED", "CANCELED"],
};
const ANY = { state: "all", type: "", model: "", wanted: "" };

// What the service is asked for. Texts it does not search: they are looked for in what was loaded.
function filterOf({ state, type, model }) {
  const asked = [...STATES[state].map((status) => ["status", status]), ["type", type], ["model", model]];
  return asked.filter(([, value]) => value).map(([name, value]) => `&${name}=${encodeURIComponent(value)}`).join("");
}

export function History() {
  const { byId, order, isLoaded, revision, walks } = useStore(jobs);
  const { models } = useStore(catalogue);
  const [chosen, setChosen] = useState(ANY);
  const filter = filterOf(chosen);
  const { cursor, hasMore, isLoading } = walkOf(filter);
  // Behind the place to which the list was read there may be others that nobody has asked for yet.
  const found = useMemo(() => order.filter((id) => !hasMore || !cursor || id >= cursor).map((id) => byId.get(id)).filter((job) => fits(job, chosen)), [revision, walks, chosen]);
  const list = useRef(null);
  const range = useRange(list, found.length);
  useEffect(() => {
    // Also where a filter leaves little of what is there.
    if (isLoaded && hasMore && !isLoading && range.to >= found.length - BEYOND * 2) loadMore(filter);
  }, [filter, range.to, found.length, cursor, isLoaded, hasMore, isLoading]);
  const isFiltered = Object.entries(ANY).some(([name, value]) => chosen[name] !== value);
  const choose = (patch) => {
    setChosen({ ...chosen, ...patch });
    window.scrollTo(0, 0);
  };
  const offeredOf = (type) => (models ?? []).filter((one) => !type || one.type === type);
  const chooseType = (type) => choose({ type, model: offeredOf(type).some(({ model }) => model === chosen.model) ? chosen.model : "" });
  return html`<main class="history" id="main">
    <div class="row between head"><h1>${t("nav.history")}</h1><span class="aside number" role="status">${hasMore ? t("history.so_far", { n: found.length }) : t("history.count", { n: found.length })}</span></div>
    <div class="filters row" role="search">
      <${Segments} label=${t("history.state")} name="state" value=${chosen.state} onChange=${(state) => choose({ state })} options=${Object.keys(STATES).map((name) => [name, t(`history.${name}`)])} />
      <select aria-label=${t("type.label")} onChange=${(event) => chooseType(event.target.value)}><option value="" selected=${!chosen.type}>${t("history.types")}</option>${TYPES.map((one) => html`<option key=${one} value=${one} selected=${one === chosen.type}>${t(`type.${one}`)}</option>`)}</select>
      <select aria-label=${t("model.label")} onChange=${(event) => choose({ model: event.target.value })}><option value="" selected=${!chosen.model}>${t("history.models")}</option>${offeredOf(chosen.type).map((one) => html`<option key=${one.model} value=${one.model} selected=${one.model === chosen.model}>${one.title}</option>`)}</select>
      <input type="search" aria-label=${t("history.search")} placeholder=${t("history.search")} value=${chosen.wanted} onInput=${(event) => choose({ wanted: event.target.value })} />
    </div>
    ${!isLoaded ? html`<div aria-hidden="true">${[1, 2, 3, 4, 5].map((one) => html`<div key=${one} class="skeleton row-box" />`)}</div>`
      : found.length === 0 && !hasMore ? html`<${Empty} title=${isFiltered ? t("history.none") : t("results.empty")}>
          ${isFiltered ? html`<button type="button" onClick=${() => choose(ANY)}>${t("history.reset")}</button>` : html`<a class="button primary" href="#/create">${t("history.first")}</a>`}<//>`
      : html`<ul class="rows" ref=${list} style=${{ height: `${found.length * ROW}px` }}>
        ${found.slice(range.from, range.to).map((job, at) => html`<li key=${job.job_id} aria-setsize=${hasMore ? -1 : found.length} aria-posinset=${range.from + at + 1} style=${{ top: `${(range.from + at) * ROW}px` }}><${Row} job=${job} /></li>`)}
      </ul>`}
    ${isLoading && html`<div class="skeleton row-box" aria-hidden="true" />`}
  </main>`;
}

function fits(job, { state, type, model, wanted }) {
  const isOfState = state === "all" || (state === "running" ? !FINAL.has(job.status) : STATES[state].includes(job.status));
  if (!isOfState || (type && job.type !== type) || (model && job.model_id !== model)) return false;
  const text = wanted.trim().toLowerCase();
  return !text || [promptOf(job), titleOf(job), job.model_id, job.job_id, job.fal_request_id ?? ""].some((one) => one.toLowerCase().includes(text));
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
  const isVideo = job.type.endsWith("VIDEO");
  const text = promptOf(job) || titleOf(job);
  const detail = job.status === "COMPLETED" ? "" : FINAL.has(job.status) ? failureOf(job) : whyOf(job);
  return html`<button type="button" class="row-box" onClick=${() => open(job)}>
    <span class="row-picture">${!output ? html`<${Icon} name=${isVideo ? "play" : "image"} />` : isVideo ? html`<video src=${mediaUrl(output.url)} preload="metadata" muted playsinline tabindex="-1" aria-hidden="true" />` : html`<img src=${mediaUrl(output.url)} alt="" loading="lazy" decoding="async" />`}</span>
    <span class="row-text"><span class="prompt">${text}</span><span class="aside">${titleOf(job)} · ${moment(job.created_at)}${detail && html` · <span class="why">${detail}</span>`}</span></span>
    <span class="row-state"><span class=${job.status === "COMPLETED" ? "unseen" : `badge status-${job.status}`}>${t(`status.${job.status}`)}</span></span>
    <span class="number cost">${tokens(job.billing?.charged_tokens ?? job.cost_tokens)}</span>
  </button>`;
}
