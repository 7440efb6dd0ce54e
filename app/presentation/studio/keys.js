// Keys and webhook endpoints. The full key is asked for and is kept by this module alone, in memory, while the place is open.
import { call } from "./api.js";
import { EndpointList } from "./endpoints.js";
import { html, useRef, useState } from "./html.js";
import { useList } from "./lists.js";
import { Problem, Sure, useFocusPassedOn } from "./parts.js";
import { showSecret } from "./secret.js";
import { keyOf } from "./session.js";
import { SmallForm, TextField, Wrong, saidOf, useSmallForm } from "./smallform.js";
import { moment, t, tokens } from "./text.js";

const SCOPES = ["generate", "read", "manage"];
const PERIODS = ["day", "month", "ever"];
const BLANK = { name: "", scopes: ["generate", "read"], tokens: "", per: "day", days: "" };
const DAYS_MAX = 3650;

export function Keys() {
  const [full, setFull] = useState(null);
  const main = useRef(null);
  const passing = useFocusPassedOn(() => main.current.querySelector("input, button"));
  return html`<main class="keys" id="main" ref=${main} ...${passing}><h1>${t("nav.keys")}</h1>
    ${full ? html`<${Lists} full=${full} onEnd=${() => setFull(null)} />` : html`<${AskForKey} onKey=${setFull} />`}</main>`;
}

function AskForKey({ onKey }) {
  const [error, setError] = useState(null);
  const onSubmit = async (event) => {
    event.preventDefault();
    const key = event.target.elements.full.value.trim();
    try {
      const found = await call("GET", "/keys/current", { key });
      if (!found.scopes.includes("manage")) setError({ code: "studio_needs_manage" });
      else onKey(key);
    } catch (failure) {
      setError(failure);
    }
  };
  return html`<form class="card entry" onSubmit=${onSubmit}><h2>${t("keys.ask")}</h2><p>${t("keys.ask.why")}</p>
    <label for="full">${t("welcome.key")}</label><input id="full" name="full" type="password" autocomplete="off" spellcheck="false" placeholder="tgk_…" required aria-describedby="full-hint" />
    <p class="hint" id="full-hint">${t("keys.ask.where")}</p>
    <button class="primary">${t("keys.open")}</button><${Problem} error=${error} /></form>`;
}

function Lists({ full, onEnd }) {
  return html`<p class="row between"><span class="hint">${t("keys.in_memory")}</span><button type="button" onClick=${onEnd}>${t("keys.close")}</button></p>
    <${KeyList} full=${full} /><${EndpointList} full=${full} />`;
}

// Signing out ends it; by a new secret the page would be signed out.
const isOfPage = (key) => keyOf()?.startsWith(key.hint);

const show = ({ name, api_key: secret }, why) => showSecret({ title: t("secret.of", { name }), secret, why });

function KeyList({ full }) {
  const { items, error, load, act, trouble } = useList(full, "/keys");
  const card = useRef(null);
  const passing = useFocusPassedOn(() => card.current.querySelector(".new > summary"));
  const send = (method, path, body) => call(method, `/keys${path}`, { key: full, body });
  const rotate = ({ id }) => act(id, async () => show(await send("POST", `/${id}/rotate`, { overlap_seconds: 3600 }), t("secret.overlap")));
  return html`<section class="card" ref=${card} ...${passing}><h2>${t("keys.title")}</h2>
    <${Problem} error=${error}><button type="button" onClick=${load}>${t("try.again")}</button><//>
    ${!items ? !error && html`<div class="skeleton box" aria-hidden="true" />` : html`<ul class="entries">${items.map((key) => html`<li key=${key.id}>
      <div><strong>${key.name}</strong> <code>${key.hint}…</code>${key.is_current && html` <em class="badge">${t("keys.current")}</em>`}${isOfPage(key) && html` <em class="badge">${t("keys.page")}</em>`}
        <p class="aside">${key.scopes.join(", ")} ${key.is_current || isOfPage(key) ? "" : ` · ${key.last_used_at ? t("keys.used", { when: moment(key.last_used_at) }) : t("keys.unused")}`}${key.expires_at && html` · ${t("me.until", { when: moment(key.expires_at) })}`}</p>
        ${key.budget && html`<p class="aside number">${t("keys.budget", { spent: key.budget.spent_tokens, budget: tokens(key.budget.tokens), per: t(`per.${key.budget.per}`) })}</p><meter min="0" max=${key.budget.tokens} value=${key.budget.spent_tokens} aria-label=${t("keys.budget.of", { name: key.name })} />`}</div>
      ${!key.is_current && !isOfPage(key) && html`<div class="row"><${Sure} label=${t("keys.rotate")} onSure=${() => rotate(key)} />
        <${Sure} label=${t("keys.delete")} onSure=${() => act(key.id, () => send("DELETE", `/${key.id}`))} /></div>`}
      ${trouble.of === key.id && html`<${Problem} error=${trouble.error} />`}</li>`)}</ul>`}
    <details class="new"><summary>${t("keys.new")}</summary><${NewKey} onSend=${async (body) => {
      show(await send("POST", "", body));
      load();
    }} /></details></section>`;
}

const isWhole = (text, max = Infinity) => /^\d+$/.test(text.trim()) && Number(text) >= 1 && Number(text) <= max;

function wrongIn({ name, scopes, tokens: amount, days }) {
  return {
    ...(!name.trim() && { name: t("keys.name.missing") }),
    ...(!scopes.length && { scopes: t("keys.scopes.missing") }),
    ...(amount.trim() && !isWhole(amount) && { tokens: t("keys.budget.wrong") }),
    ...(days.trim() && !isWhole(days, DAYS_MAX) && { days: t("keys.days.wrong", { max: DAYS_MAX }) }),
  };
}

function bodyOf({ name, scopes, tokens: amount, per, days }) {
  const body = { name, scopes };
  if (amount.trim()) body.budget = { tokens: Number(amount), per };
  if (days.trim()) body.expires_at = new Date(Date.now() + Number(days) * 86_400_000).toISOString();
  return body;
}

function NewKey({ onSend }) {
  const places = { name: "name", scopes: "scopes", budget: "tokens", expires_at: "days" };
  const form = useSmallForm({ blank: BLANK, wrongIn, places, send: (values) => onSend(bodyOf(values)) });
  const { values, wrong, set } = form;
  const tick = (scope, isTicked) => set("scopes", SCOPES.filter((one) => (one === scope ? isTicked : values.scopes.includes(one))));
  return html`<${SmallForm} of=${form} submit=${t("keys.make")}>
    <${TextField} of=${form} id="key-name" name="name" label=${t("keys.name")} maxlength="100" autocomplete="off" />
    <fieldset class="field"><legend>${t("keys.scopes")}</legend>
      ${SCOPES.map((scope) => html`<label class="check" key=${scope}>
        <input type="checkbox" checked=${values.scopes.includes(scope)} onChange=${(event) => tick(scope, event.target.checked)} ...${saidOf("key-scopes", wrong.scopes)} />
        ${t(`scope.${scope}`)}</label>`)}
      <${Wrong} id="key-scopes" text=${wrong.scopes} /></fieldset>
    <${TextField} of=${form} id="key-tokens" name="tokens" label=${t("keys.budget.new")} inputmode="numeric" autocomplete="off" class="number">
      <select aria-label=${t("keys.per")} onChange=${(event) => set("per", event.target.value)}>
        ${PERIODS.map((per) => html`<option key=${per} value=${per} selected=${per === values.per}>${t(`per.${per}`)}</option>`)}</select><//>
    <${TextField} of=${form} id="key-days" name="days" label=${t("keys.days")} inputmode="numeric" autocomplete="off" class="number" /><//>`;
}
