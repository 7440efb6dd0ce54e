// Keys and webhook endpoints. The full key is asked for and is kept by this module alone, in memory, while the place is open.
import { call } from "./api.js";
import { html, useEffect, useState } from "./html.js";
import { Copy, Empty, Problem, Sure, say } from "./parts.js";
import { keyOf } from "./session.js";
import { explainSentence, moment, t, tokens } from "./text.js";

export function Keys() {
  const [full, setFull] = useState(null);
  return html`<main class="keys" id="main"><h1>${t("nav.keys")}</h1>
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
    <label for="full">${t("welcome.key")}</label><input id="full" name="full" type="password" autocomplete="off" spellcheck="false" placeholder="tgk_…" required />
    <button class="primary">${t("keys.open")}</button><${Problem} error=${error} /></form>`;
}

function useList(full, path) {
  const [items, setItems] = useState(null);
  const [error, setError] = useState(null);
  const load = async () => {
    try {
      setItems((await call("GET", path, { key: full })).items);
      setError(null);
    } catch (failure) {
      setError(failure);
    }
  };
  const act = async (work) => {
    try {
      const made = await work();
      await load();
      return made;
    } catch (failure) {
      setError(failure);
      return null;
    }
  };
  useEffect(() => { load(); }, [full]);
  return { items, error, act };
}

function Lists({ full, onEnd }) {
  return html`<p class="row between"><span class="hint">${t("keys.in_memory")}</span><button type="button" onClick=${onEnd}>${t("keys.close")}</button></p>
    <${KeyList} full=${full} /><${EndpointList} full=${full} />`;
}

function Secret({ secret, label, isNewer = false }) {
  if (!secret) return null;
  return html`<div class="secret" role="status"><p><strong>${label}</strong> ${t("secret.once")} ${isNewer && t("secret.overlap")}</p><div class="row"><code>${secret}</code><${Copy} text=${secret} label=${t("copy")} /></div></div>`;
}

// Signing out ends it; by a new secret the page would be signed out.
const isOfPage = (key) => keyOf()?.startsWith(key.hint);

function KeyList({ full }) {
  const { items, error, act } = useList(full, "/keys");
  const [secret, setSecret] = useState(null);
  const send = (method, path, body) => call(method, path, { key: full, body });
  const onCreate = async (event) => {
    event.preventDefault();
    const { name, tokens: amount, per, days, ...scopes } = event.target.elements;
    const chosen = ["generate", "read", "manage"].filter((scope) => scopes[scope].checked);
    const body = { name: name.value, scopes: chosen };
    if (amount.value) body.budget = { tokens: Number(amount.value), per: per.value };
    if (days.value) body.expires_at = new Date(Date.now() + days.value * 86_400_000).toISOString();
    const made = await act(() => send("POST", "/keys", body));
    if (made) {
      setSecret({ text: made.api_key, label: made.name });
      event.target.reset();
    }
  };
  const rotate = async (key) => {
    const made = await act(() => send("POST", `/keys/${key.id}/rotate`, { overlap_seconds: 3600 }));
    if (made) setSecret({ text: made.api_key, label: made.name, isNewer: true });
  };
  return html`<section class="card"><h2>${t("keys.title")}</h2>
    <${Problem} error=${error} /><${Secret} secret=${secret?.text} label=${secret?.label} isNewer=${secret?.isNewer} />
    ${!items ? html`<div class="skeleton box" aria-hidden="true" />` : html`<ul class="entries">${items.map((key) => html`<li key=${key.id}>
      <div><strong>${key.name}</strong> <code>${key.hint}…</code>${key.is_current && html` <em class="badge">${t("keys.current")}</em>`}${isOfPage(key) && html` <em class="badge">${t("keys.page")}</em>`}
        <p class="aside">${key.scopes.join(", ")} ${key.is_current || isOfPage(key) ? "" : ` · ${key.last_used_at ? t("keys.used", { when: moment(key.last_used_at) }) : t("keys.unused")}`}${key.expires_at && html` · ${t("me.until", { when: moment(key.expires_at) })}`}</p>
        ${key.budget && html`<p class="aside number">${t("keys.budget", { spent: key.budget.spent_tokens, budget: tokens(key.budget.tokens), per: t(`per.${key.budget.per}`) })}</p><meter min="0" max=${key.budget.tokens} value=${key.budget.spent_tokens} aria-label=${t("keys.budget.of", { name: key.name })} />`}</div>
      ${!key.is_current && !isOfPage(key) && html`<div class="row"><${Sure} label=${t("keys.rotate")} onSure=${() => rotate(key)} />
        <${Sure} label=${t("keys.delete")} onSure=${() => act(() => send("DELETE", `/keys/${key.id}`))} /></div>`}</li>`)}</ul>`}
    <details><summary>${t("keys.new")}</summary><form class="small-form" onSubmit=${onCreate}>
      <label>${t("keys.name")}<input name="name" required maxlength="100" /></label>
      <fieldset><legend>${t("keys.scopes")}</legend>${["generate", "read", "manage"].map((scope) => html`<label class="check" key=${scope}><input type="checkbox" name=${scope} checked=${scope !== "manage"} />${t(`scope.${scope}`)}</label>`)}</fieldset>
      <label>${t("keys.budget.new")}<span class="row"><input name="tokens" type="number" min="1" class="number" /><select name="per" aria-label=${t("keys.per")}>${["day", "month", "ever"].map((per) => html`<option key=${per} value=${per}>${t(`per.${per}`)}</option>`)}</select></span></label>
      <label>${t("keys.days")}<input name="days" type="number" min="1" max="3650" class="number" /></label>
      <button class="primary">${t("keys.make")}</button></form></details></section>`;
}

function EndpointList({ full }) {
  const { items, error, act } = useList(full, "/webhook-endpoints");
  const [secret, setSecret] = useState(null);
  const send = (method, path, body) => call(method, path, { key: full, body });
  const onCreate = async (event) => {
    event.preventDefault();
    const { url, description } = event.target.elements;
    const body = { url: url.value, ...(description.value ? { description: description.value } : {}) };
    const made = await act(() => send("POST", "/webhook-endpoints", body));
    if (made) {
      setSecret({ text: made.secret, label: made.url });
      event.target.reset();
    }
  };
  const test = async (endpoint) => {
    if (await act(() => send("POST", `/webhook-endpoints/${endpoint.id}/test`))) say(t("endpoint.tested"));
  };
  // What happened while it was off comes too.
  const enable = (endpoint) => act(async () => {
    await send("PATCH", `/webhook-endpoints/${endpoint.id}`, { is_enabled: true });
    if (endpoint.missed_after !== null) await send("POST", `/webhook-endpoints/${endpoint.id}/replay`, { after: endpoint.missed_after });
  });
  const rotate = async (endpoint) => {
    const made = await act(() => send("POST", `/webhook-endpoints/${endpoint.id}/rotate-secret`, { overlap_seconds: 3600 }));
    if (made) setSecret({ text: made.secret, label: made.url });
  };
  return html`<section class="card"><h2>${t("endpoint.title")}</h2>
    <${Problem} error=${error} /><${Secret} secret=${secret?.text} label=${secret?.label} />
    ${!items ? html`<div class="skeleton box" aria-hidden="true" />` : items.length === 0 ? html`<${Empty} title=${t("endpoint.none")}><p>${t("endpoint.none.hint")}</p><//>` : html`<ul class="entries">${items.map((endpoint) => html`<li key=${endpoint.id}>
      <div><strong class="break">${endpoint.url}</strong>${endpoint.disabled_at && html` <em class="badge warn">${t("endpoint.disabled")}</em>`}<p class="aside">${endpoint.description ?? ""} ${endpoint.disabled_reason ? t(`endpoint.reason.${endpoint.disabled_reason}`) : ""}</p></div>
      <div class="row">${endpoint.disabled_at && html`<button type="button" class="primary" onClick=${() => enable(endpoint)}>${t("endpoint.enable")}</button>`}
        <button type="button" disabled=${!endpoint.is_enabled} onClick=${() => test(endpoint)}>${t("endpoint.test")}</button>
        <${Sure} label=${t("keys.rotate")} onSure=${() => rotate(endpoint)} />
        <${Sure} label=${t("keys.delete")} onSure=${() => act(() => send("DELETE", `/webhook-endpoints/${endpoint.id}`))} /></div>
      <${Deliveries} full=${full} id=${endpoint.id} /></li>`)}</ul>`}
    <details><summary>${t("endpoint.new")}</summary><form class="small-form" onSubmit=${onCreate}>
      <label>URL<input name="url" type="url" required placeholder="https://…" /></label>
      <label>${t("endpoint.description")}<input name="description" maxlength="200" /></label>
      <button class="primary">${t("endpoint.make")}</button></form></details></section>`;
}

// Asked for once somebody wants to see them.
function Deliveries({ full, id }) {
  const [items, setItems] = useState(null);
  const [error, setError] = useState(null);
  const load = async (event) => {
    if (!event.target.open) return;
    try {
      setItems((await call("GET", `/webhook-endpoints/${id}/deliveries`, { key: full })).items);
    } catch (failure) {
      setError(failure);
    }
  };
  return html`<details class="deliveries" onToggle=${load}><summary>${t("delivery.title")}</summary><${Problem} error=${error} />
    ${items?.length === 0 && html`<p class="hint">${t("delivery.none")}</p>`}
    <ul>${(items ?? []).map((one) => html`<li key=${one.id} class="row between"><span><code>${one.type}</code> <span class="aside">${moment(one.created_at)}</span></span>
      <span class="aside">${t("delivery.attempts", { n: one.attempts })} · ${one.attempt_log.at(-1)?.status ?? explainSentence(one.attempt_log.at(-1)?.error) ?? ""} <em class=${one.state === "delivered" ? "badge status-COMPLETED" : "badge"}>${t(`delivery.state.${one.state}`)}</em></span></li>`)}</ul></details>`;
}
