// What moved the balance, and its course as a line.
import { Chart } from "./chart.js";
import { promptOf, titleOf } from "./requests.js";
import { html, useEffect, useState } from "./html.js";
import { jobs } from "./jobs.js";
import { Empty, Problem } from "./parts.js";
import { mine } from "./session.js";
import { useStore } from "./store.js";
import { moment, number, t, tokens } from "./text.js";

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
      <div class="table-box" tabindex="0" role="region" aria-label=${t("nav.ledger")}><table><thead><tr><th scope="col" class="when">${t("ledger.when")}</th><th scope="col">${t("ledger.what")}</th><th scope="col" class="figure-cell">${t("ledger.amount")}</th><th scope="col" class="figure-cell">${t("ledger.after")}</th></tr></thead>
        <tbody>${linesOf(entries).map((line) => html`<${Line} key=${line.key} line=${line} job=${byId.get(line.job_id)} />`)}</tbody></table></div>
      <div class="row center"><span class="aside number" role="status">${t(cursor ? "ledger.so_far" : "ledger.count", { n: entries.length })}</span>
        ${cursor && html`<button type="button" onClick=${() => load(cursor)}>${t("ledger.more")}</button>`}</div>`}
  </main>`;
}

// A job is one line, with its charge and what came back of it, as far as both were loaded; the newest entry first.
function linesOf(entries) {
  const lines = new Map();
  for (const [place, entry] of entries.entries()) {
    const key = entry.job_id ?? `entry ${entries.length - place}`;
    if (lines.has(key)) lines.get(key).entries.push(entry);
    else lines.set(key, { key, job_id: entry.job_id, entries: [entry] });
  }
  return [...lines.values()];
}

const TAKING = new Set(["DEBIT", "REVERSAL"]);
const signed = ({ kind, amount }) => (TAKING.has(kind) ? -Math.abs(amount) : amount);
const withSign = (amount) => `${amount > 0 ? "+" : amount < 0 ? "−" : ""}${number(Math.abs(amount))}`;

function Line({ line, job }) {
  const { entries, job_id: id } = line;
  const [newest] = entries;
  const amount = entries.reduce((sum, entry) => sum + signed(entry), 0);
  const kind = t(`entry.${newest.kind}`);
  const told = [...entries].reverse().map((entry, at) => html`<span key=${at} class="aside moved">${t(`entry.${entry.kind}`)} <span class="number">${withSign(signed(entry))}</span> · ${moment(entry.created_at)}</span>`);
  // On a phone, where there is no column for it.
  const when = html`<span class="aside moved narrow">${moment(newest.created_at)}</span>`;
  return html`<tr><td class="when">${moment(newest.created_at)}</td>
    <td>${id ? html`<a class="what" href=${`#/job/${id}/0`}>${job ? promptOf(job) || titleOf(job) : kind}</a>${entries.length > 1 ? told : html`${job && html`<span class="aside">${kind} · ${titleOf(job)}</span>`}${when}`}`
      : html`${newest.reason ? `${kind}: ${newest.reason}` : kind}${when}`}</td>
    <td class=${amount > 0 ? "figure-cell number plus" : "figure-cell number"}>${withSign(amount)}</td><td class="figure-cell number">${number(newest.balance_after)}</td></tr>`;
}
