// What moved the balance, and its course as a line.
import { promptOf, titleOf } from "./requests.js";
import { html, useEffect, useState } from "./html.js";
import { jobs } from "./jobs.js";
import { Empty, Problem } from "./parts.js";
import { mine } from "./session.js";
import { useStore } from "./store.js";
import { language, moment, number, t, tokens } from "./text.js";

const WIDTH = 720;
const HEIGHT = 180;

export function Ledger() {
  const { balance, byId } = useStore(jobs);
  const [entries, setEntries] = useState(null);
  const [cursor, setCursor] = useState(null);
  const [error, setError] = useState(null);
  const load = async (after) => {
    try {
      const page = await mine("GET", `/ledger?limit=100${after ? `&cursor=${after}` : ""}`);
      setEntries((before) => (after ? [...before, ...page.items] : page.items));
      setCursor(page.next_cursor);
      setError(null);
    } catch (failure) {
      setError(failure);
    }
  };
  // Each time that the balance has moved.
  useEffect(() => { load(null); }, [balance]);
  return html`<main class="ledger" id="main">
    <div class="row between head"><h1>${t("nav.ledger")}</h1><strong class="figure number">${balance === null ? "" : tokens(balance)}</strong></div>
    <${Problem} error=${error}><button type="button" onClick=${() => load(null)}>${t("try.again")}</button><//>
    ${entries === null && !error ? html`<div class="skeleton chart" aria-hidden="true" />` : null}
    ${entries?.length === 0 && html`<${Empty} title=${t("ledger.empty")}><p>${t("ledger.empty.hint")}</p><//>`}
    ${entries?.length > 0 && html`
      <${Chart} entries=${entries} />
      <div class="table-box" tabindex="0" role="region" aria-label=${t("nav.ledger")}><table><thead><tr><th scope="col">${t("ledger.when")}</th><th scope="col">${t("ledger.what")}</th><th scope="col" class="figure-cell">${t("ledger.amount")}</th><th scope="col" class="figure-cell">${t("ledger.after")}</th></tr></thead>
        <tbody>${entries.map((entry, place) => html`<tr key=${`${entry.created_at} ${place}`}><td class="when">${moment(entry.created_at)}</td><td>${whatOf(entry, byId)}</td>
          <td class=${signed(entry) > 0 ? "figure-cell number plus" : "figure-cell number"}>${signed(entry) > 0 ? "+" : "−"}${number(Math.abs(entry.amount))}</td><td class="figure-cell number">${number(entry.balance_after)}</td></tr>`)}</tbody></table></div>
      ${cursor && html`<p class="center"><button type="button" onClick=${() => load(cursor)}>${t("ledger.more")}</button></p>`}`}
  </main>`;
}

const TAKING = new Set(["DEBIT", "REVERSAL"]);
const signed = ({ kind, amount }) => (TAKING.has(kind) ? -Math.abs(amount) : amount);

function whatOf(entry, byId) {
  const kind = t(`entry.${entry.kind}`);
  if (entry.job_id) {
    const job = byId.get(entry.job_id);
    return html`<a class="what" href=${`#/job/${entry.job_id}/0`}>${job ? promptOf(job) || titleOf(job) : kind}</a>${job && html`<span class="aside">${kind} · ${titleOf(job)}</span>`}`;
  }
  return entry.reason ? `${kind}: ${entry.reason}` : kind;
}

// A balance jumps: it is drawn as steps.
function Chart({ entries }) {
  const points = [...entries].reverse().map((entry) => ({ at: Date.parse(entry.created_at), tokens: entry.balance_after }));
  const first = points[0].at;
  const last = Math.max(Date.now(), first + 1);
  const top = niceAbove(Math.max(1, ...points.map((point) => point.tokens)));
  const bottom = Math.min(0, ...points.map((point) => point.tokens));
  const x = (at) => ((at - first) / (last - first)) * WIDTH;
  const y = (value) => HEIGHT - ((value - bottom) / (top - bottom)) * HEIGHT;
  const steps = points.map((point, place) => `${place ? "H" : "M"}${x(point.at).toFixed(1)}${place ? `V${y(point.tokens).toFixed(1)}` : `,${y(point.tokens).toFixed(1)}`}`).join("");
  const line = `${steps}H${WIDTH}`;
  const day = new Intl.DateTimeFormat(language.get().name, last - first > 172_800_000 ? { day: "numeric", month: "short" } : { hour: "2-digit", minute: "2-digit" });
  const summary = t("chart.summary", { from: tokens(points[0].tokens), to: tokens(points.at(-1).tokens), n: points.length });
  return html`<figure class="chart-box">
    <div class="chart-scale number" aria-hidden="true"><span>${number(top)}</span><span>${number((top + bottom) / 2)}</span><span>${number(bottom)}</span></div>
    <svg class="chart" viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label=${summary}>
      ${[0, 0.5, 1].map((part) => html`<line key=${part} x1="0" x2=${WIDTH} y1=${part * HEIGHT} y2=${part * HEIGHT} />`)}
      <path class="area" d=${`${line}V${HEIGHT}H0Z`} /><path class="curve" d=${line} />
    </svg>
    <figcaption class="row between aside number"><span>${day.format(first)}</span><span>${t("chart.caption")}</span><span>${t("now")}</span></figcaption>
  </figure>`;
}

function niceAbove(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((step) => step * power).find((step) => step >= value);
}
