// What stands around every place: its names, the balance, the language, the way out.
import { address } from "./api.js";
import { askForBudget, budget, budgetLeft } from "./budget.js";
import { Icon } from "./icons.js";
import { html, useEffect, useRef, useState } from "./html.js";
import { FINAL, jobs } from "./jobs.js";
import { promptOf, titleOf } from "./requests.js";
import { goToContent } from "./parts.js";
import { session, signOut } from "./session.js";
import { useStore } from "./store.js";
import { chooseLanguage, language, languages, moment, t, tokens } from "./text.js";

const NEWEST = 50;
const DAY_MS = 86_400_000;
const RENEWED_MS = 5000;
const LINKS = ["create", "history", "ledger", "keys"];

export function Shell({ place, isSignedIn, children }) {
  return html`<div class="page">
    <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); goToContent(); }}>${t("skip")}</a>
    <header class="top">
      <span class="mark"><svg viewBox="0 0 32 32" aria-hidden="true"><rect width="32" height="32" rx="8" /><path d="M8 23V13a8 8 0 0 1 16 0v10M8 17h16" /></svg>Tollgate</span>
      ${isSignedIn && html`<nav aria-label=${t("nav.label")}>${LINKS.map((name) => html`<a key=${name} href=${`#/${name}`} onClick=${() => place === name && scrollTo({ top: 0 })} aria-current=${place === name ? "page" : undefined}>${t(`nav.${name}`)}</a>`)}</nav>`}
      <div class="top-end">${isSignedIn && html`<${Balance} />`}<${Languages} />${isSignedIn ? html`<${Me} />` : html`<a class="button quiet" href=${address("docs").href}>${t("docs")}</a>`}</div>
    </header>
    ${isSignedIn && html`<${Connection} /><${News} />`}
    ${children}
  </div>`;
}

function Balance() {
  const { balance, arrivals } = useStore(jobs);
  const left = useBudget(balance);
  return html`<span class=${balance !== null && balance <= 0 ? "balance low" : "balance"}>
    <a href="#/ledger" class="number" aria-label=${balance === null ? t("balance") : t("balance.is", { tokens: tokens(balance) })}>${balance === null ? html`<span class="skeleton line" />` : tokens(balance)}</a>
    ${left && html`<span class="budget number">${left}</span>`}
    <span class="unseen" role="status">${balance === null ? "" : t("balance.is", { tokens: tokens(balance) })}${left && `. ${left}.`}</span>
    <span aria-live="polite">${arrivals.map((one) => html`<span key=${one.id} class="arrival number">${t(one.sentence, { tokens: tokens(one.amount) })}</span>`)}</span>
  </span>`;
}

// What is left of the key's budget moves when the balance does, and when it renews.
function useBudget(balance) {
  const { known } = useStore(budget);
  const { signedIn } = useStore(session);
  // The page gives a key that it makes for itself none.
  const mayHave = signedIn && !signedIn.isOwn;
  const renewsAt = known?.renews_at;
  useEffect(() => {
    if (mayHave && balance !== null) askForBudget();
  }, [mayHave, balance]);
  useEffect(() => {
    if (!renewsAt) return undefined;
    // No browser waits longer than 24 days for anything, and the clock of this machine may be wrong.
    const wait = Math.min(Math.max(Date.parse(renewsAt) - Date.now(), 0) + RENEWED_MS, DAY_MS);
    const timer = setTimeout(askForBudget, wait);
    return () => clearTimeout(timer);
  }, [known]);
  return known ? t(`budget.${known.per}`, { left: budgetLeft(), all: known.tokens }) : "";
}

// Of the newest runs, what their cards show: for those who hear the page.
function News() {
  const { byId, order, isLoaded } = useStore(jobs);
  const known = useRef(null);
  const [news, setNews] = useState({ text: "", number: 0 });
  useEffect(() => {
    if (!isLoaded) return;
    const newest = order.slice(0, NEWEST).map((id) => byId.get(id));
    const changed = known.current ? newest.filter((job) => known.current.get(job.job_id) !== phaseOf(job)) : [];
    known.current = new Map(newest.map((job) => [job.job_id, phaseOf(job)]));
    if (!changed.length) return;
    const text = changed.map((job) => `${t(`status.${phaseOf(job)}`)}: ${promptOf(job) || titleOf(job)}.`).join(" ");
    setNews((before) => ({ text, number: before.number + 1 }));
  });
  // Said again where it is the same again.
  return html`<div class="unseen" role="status"><span key=${news.number}>${news.text}</span></div>`;
}

// Where exactly a run waits is not worth being interrupted for.
const phaseOf = ({ status }) => (FINAL.has(status) || status === "IN_PROGRESS" || status === "CANCELING" ? status : "QUEUED");

function Connection() {
  const { link } = useStore(jobs);
  const [isOffline, setOffline] = useState(!navigator.onLine);
  useEffect(() => {
    const look = () => setOffline(!navigator.onLine);
    window.addEventListener("online", look);
    window.addEventListener("offline", look);
    return () => {
      window.removeEventListener("online", look);
      window.removeEventListener("offline", look);
    };
  }, []);
  const isLost = isOffline || link === "lost";
  return html`<div role="status" class=${isLost ? "connection" : "unseen"}>${isLost ? t("connection.lost") : ""}</div>`;
}

function Languages() {
  const { name } = useStore(language);
  return html`<select class="language" aria-label=${t("language")} onChange=${(event) => chooseLanguage(event.target.value)}>
    ${Object.entries(languages).map(([key, title]) => html`<option key=${key} value=${key} lang=${key} title=${title} selected=${key === name}>${key.toUpperCase()}</option>`)}
  </select>`;
}

function Me() {
  const { signedIn } = useStore(session);
  const [isLeaving, setLeaving] = useState(false);
  const menu = useRef(null);
  useEffect(() => {
    const close = (event) => {
      const isOutside = event.type === "click" && !menu.current?.contains(event.target);
      if (event.key !== "Escape" && !isOutside) return;
      if (event.key === "Escape" && menu.current?.contains(document.activeElement)) menu.current.querySelector("summary").focus();
      menu.current?.removeAttribute("open");
    };
    document.addEventListener("click", close);
    document.addEventListener("keydown", close);
    return () => {
      document.removeEventListener("click", close);
      document.removeEventListener("keydown", close);
    };
  }, []);
  const leave = () => {
    setLeaving(true);
    signOut();
  };
  const until = signedIn?.expiresAt ? t("me.until", { when: moment(signedIn.expiresAt) }) : "";
  return html`<details class="menu" ref=${menu}><summary class="bare" aria-label=${t("me")}><span class="dot" aria-hidden="true">${(signedIn?.name ?? "?").charAt(0).toUpperCase()}</span></summary>
    <div class="menu-box"><p><strong>${signedIn?.name}</strong><br /><span class="aside">${(signedIn?.scopes ?? []).join(", ")}${until && html`<br />${until}`}</span></p>
      <p class="hint">${signedIn?.isOwn ? t("me.own") : t("me.given")}</p>
      <a class="button" href=${address("docs").href}>${t("docs")}</a>
      <button type="button" disabled=${isLeaving} onClick=${leave}><${Icon} name="out" />${t("sign.out")}</button></div></details>`;
}
