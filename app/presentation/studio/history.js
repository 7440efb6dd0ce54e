// All jobs, newest first, as a list or a grid. Only what is in sight is on the page, however many there are.
import { mediaUrl } from "./api.js";
import { QuickActions } from "./actions.js";
import { catalogue } from "./draft.js";
import { ANY, STATES, chosenOf, filterOf, foundOf, queryOf } from "./filters.js";
import { failureOf, open, whyOf } from "./gallery.js";
import { Icon } from "./icons.js";
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./html.js";
import { FINAL, jobs, loadMore, walkOf } from "./jobs.js";
import { Empty, Segments } from "./parts.js";
import { place, setQuery } from "./place.js";
import { promptOf, titleOf } from "./requests.js";
import { TYPES } from "./schema.js";
import { useStore } from "./store.js";
import { day, moment, t, tokens } from "./text.js";

// As the style sheet has them, in letters of the size that the user has chosen.
const REM = parseFloat(getComputedStyle(document.documentElement).fontSize);
const [ROW, TILE, GAP, HEADING] = [6 * REM, 10 * REM, 0.5 * REM, 2.75 * REM];
const BEYOND = 6 * ROW;
// Of the browser, not of an account: it stays when somebody signs out.
const VIEW = "tollgate-history-view";

export function History() {
  const { isLoaded, revision, walks } = useStore(jobs);
  const { models } = useStore(catalogue);
  const { under } = useStore(place);
  const chosen = useMemo(() => chosenOf(under.query), [under.query]);
  const [view, setView] = useState(localStorage.getItem(VIEW) === "grid" ? "grid" : "list");
  const filter = filterOf(chosen);
  const { cursor, hasMore, isLoading } = walkOf(filter);
  const found = useMemo(() => foundOf(chosen), [revision, walks, chosen]);
  const isFiltered = queryOf(chosen) !== "";
  const choose = (patch) => {
    setQuery(queryOf({ ...chosen, ...patch }));
    window.scrollTo(0, 0);
  };
  const chooseView = (name) => {
    localStorage.setItem(VIEW, name);
    setView(name);
    window.scrollTo(0, 0);
  };
  // Also where a filter leaves little of what is there.
  const onEnd = () => isLoaded && hasMore && !isLoading && loadMore(filter);
  const offeredOf = (type) => (models ?? []).filter((one) => !type || one.type === type);
  const chooseType = (type) => choose({ type, model: offeredOf(type).some(({ model }) => model === chosen.model) ? chosen.model : "" });
  return html`<main class="history" id="main">
    <div class="row between head"><h1>${t("nav.history")}</h1><div class="row"><span class="aside number" role="status">${hasMore ? t("history.so_far", { n: found.length }) : t("history.count", { n: found.length })}</span>
      <${Segments} label=${t("history.view")} name="view" value=${view} onChange=${chooseView} options=${["list", "grid"].map((name) => [name, t(`history.${name}`)])} /></div></div>
    <div class="filters" role="search">
      <${Segments} label=${t("history.state")} name="state" value=${chosen.state} onChange=${(state) => choose({ state })} options=${Object.keys(STATES).map((name) => [name, t(`history.${name}`)])} />
      <select aria-label=${t("type.label")} onChange=${(event) => chooseType(event.target.value)}><option value="" selected=${!chosen.type}>${t("history.types")}</option>${TYPES.map((one) => html`<option key=${one} value=${one} selected=${one === chosen.type}>${t(`type.${one}`)}</option>`)}</select>
      <select aria-label=${t("model.label")} onChange=${(event) => choose({ model: event.target.value })}><option value="" selected=${!chosen.model}>${t("history.models")}</option>${offeredOf(chosen.type).map((one) => html`<option key=${one.model} value=${one.model} selected=${one.model === chosen.model}>${one.title}</option>`)}</select>
      <input type="search" aria-label=${t("history.search")} placeholder=${t("history.search")} value=${chosen.q} onInput=${(event) => choose({ q: event.target.value })} />
    </div>
    ${!isLoaded ? html`<div aria-hidden="true">${[1, 2, 3, 4, 5].map((one) => html`<div key=${one} class="skeleton row-box" />`)}</div>`
      : found.length === 0 && !hasMore ? html`<${Empty} title=${isFiltered ? t("history.none") : t("results.empty")}>
          ${isFiltered ? html`<button type="button" onClick=${() => choose(ANY)}>${t("history.reset")}</button>` : html`<a class="button primary" href="#/create">${t("history.first")}</a>`}<//>`
      : html`<${Found} found=${found} isGrid=${view === "grid"} hasMore=${hasMore} onEnd=${onEnd} asked=${`${cursor} ${isLoading}`} />`}
    ${isLoading && html`<div class="skeleton row-box" aria-hidden="true" />`}
  </main>`;
}

// One part a day in a grid, one part in all in a list. What stands where follows from numbers alone.
function partsOf(found, isGrid, columns, height) {
  if (!isGrid) return [{ key: "all", from: 0, to: found.length, top: 0, above: 0 }];
  const parts = [];
  for (const [at, { created_at: iso }] of found.entries()) {
    const key = new Date(iso).toDateString();
    if (parts.at(-1)?.key !== key) parts.push({ key, since: iso, from: at, to: at, top: endOf(parts.at(-1), columns, height), above: HEADING });
    parts.at(-1).to = at + 1;
  }
  return parts;
}

const endOf = (part, columns, height) => (part ? part.top + part.above + Math.ceil((part.to - part.from) / columns) * height : 0);

function Found({ found, isGrid, hasMore, onEnd, asked }) {
  const box = useRef(null);
  const { top, bottom, width } = useSight(box);
  const columns = isGrid ? Math.max(1, Math.floor((width + GAP) / (TILE + GAP))) : 1;
  const side = (width + GAP) / columns;
  const height = isGrid ? side : ROW;
  const parts = useMemo(() => partsOf(found, isGrid, columns, height), [found, isGrid, columns, height]);
  const end = endOf(parts.at(-1), columns, height);
  useEffect(() => { if (width && bottom + BEYOND >= end) onEnd(); }, [bottom, end, width, asked]);
  const Item = isGrid ? Tile : Row;
  return html`<div class=${isGrid ? "tiles" : "rows"} ref=${box} style=${{ height: `${end}px` }}>
    ${parts.filter((part) => part.top < bottom && endOf(part, columns, height) > top).map((part) => {
      const placeOf = (at) => ({ top: `${part.above + Math.floor(at / columns) * height}px`, ...(isGrid && { left: `${(at % columns) * side}px`, width: `${side - GAP}px`, height: `${side - GAP}px` }) });
      const begin = part.top + part.above;
      const first = part.from + Math.max(0, Math.floor((top - begin) / height)) * columns;
      const last = Math.min(part.to, part.from + Math.max(0, Math.ceil((bottom - begin) / height)) * columns);
      const size = hasMore && part.to === found.length ? -1 : part.to - part.from;
      return html`<section key=${part.key} style=${{ top: `${part.top}px` }}>${part.since && html`<h2>${day(part.since)}</h2>`}
        <ul>${found.slice(first, last).map((job, at) => html`<li key=${job.job_id} aria-setsize=${size} aria-posinset=${first - part.from + at + 1} style=${placeOf(first - part.from + at)}>
          <${Item} job=${job} /><${QuickActions} job=${job} output=${shownOf(job)} /></li>`)}</ul></section>`;
    })}
  </div>`;
}

// From where to where the box can be seen, in whole rows, and a few more of them.
function useSight(box) {
  const [sight, setSight] = useState({ top: 0, bottom: 0, width: 0 });
  useLayoutEffect(() => {
    const look = () => {
      if (!box.current) return;
      const { top: above, width } = box.current.getBoundingClientRect();
      const top = (Math.floor(-above / ROW)) * ROW - BEYOND;
      const bottom = Math.ceil((window.innerHeight - above) / ROW) * ROW + BEYOND;
      setSight((before) => (before.top === top && before.bottom === bottom && before.width === width ? before : { top, bottom, width }));
    };
    look();
    const watcher = new ResizeObserver(look);
    watcher.observe(box.current);
    window.addEventListener("scroll", look, { passive: true });
    window.addEventListener("resize", look);
    return () => {
      watcher.disconnect();
      window.removeEventListener("scroll", look);
      window.removeEventListener("resize", look);
    };
  }, []);
  return sight;
}

const shownOf = (job) => job.outputs?.find(({ url, is_blanked: isBlanked }) => url && !isBlanked);

function Picture({ job }) {
  const output = shownOf(job);
  const isVideo = job.type.endsWith("VIDEO");
  const count = job.outputs?.length ?? 0;
  return html`<span class="row-picture">${!output ? html`<${Icon} name=${isVideo ? "play" : "image"} />` : isVideo ? html`<video src=${mediaUrl(output.url)} preload="metadata" muted playsinline tabindex="-1" aria-hidden="true" />` : html`<img src=${mediaUrl(output.url)} alt="" loading="lazy" decoding="async" />`}
    ${count > 1 && html`<span class="files number" aria-hidden="true">×${count}</span>`}</span>`;
}

const nameOf = (job) => promptOf(job) || titleOf(job);
const countOf = ({ outputs }) => (outputs?.length > 1 ? html`<span class="unseen">${t("output.count", { n: outputs.length })}</span>` : "");
const State = ({ job }) => html`<span class=${job.status === "COMPLETED" ? "unseen" : `badge status-${job.status}`}>${t(`status.${job.status}`)}</span>`;

function Row({ job }) {
  const detail = job.status === "COMPLETED" ? "" : FINAL.has(job.status) ? failureOf(job) : whyOf(job);
  return html`<button type="button" class="row-box" onClick=${() => open(job)}>
    <${Picture} job=${job} />
    <span class="row-text"><span class="prompt">${nameOf(job)}</span><span class="aside">${moment(job.created_at)} · ${titleOf(job)}${detail && html` · <span class="why">${detail}</span>`}</span>${countOf(job)}</span>
    <span class="row-state"><${State} job=${job} /></span>
    <span class="number cost">${tokens(job.billing?.charged_tokens ?? job.cost_tokens)}</span>
  </button>`;
}

function Tile({ job }) {
  return html`<button type="button" class="tile-box" title=${nameOf(job)} onClick=${() => open(job)}>
    <${Picture} job=${job} />
    ${!shownOf(job) && html`<span class="tile-text" aria-hidden="true">${nameOf(job)}</span>`}
    <span class="unseen">${nameOf(job)}, ${titleOf(job)}, ${moment(job.created_at)} </span>${countOf(job)}
    <${State} job=${job} />
  </button>`;
}
