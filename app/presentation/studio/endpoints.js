// Webhook endpoints, and what was delivered to them.
import { call } from "./api.js";
import { html, useRef, useState } from "./html.js";
import { useList } from "./lists.js";
import { Empty, Problem, Sure, say, useFocusPassedOn } from "./parts.js";
import { showSecret } from "./secret.js";
import { SmallForm, TextField, useSmallForm } from "./smallform.js";
import { explainSentence, moment, t } from "./text.js";

const BLANK = { url: "", description: "" };

const show = ({ url, secret }, why) => showSecret({ title: t("secret.of", { name: url }), secret, why });

export function EndpointList({ full }) {
  const { items, error, load, act, trouble } = useList(full, "/webhook-endpoints");
  const card = useRef(null);
  const passing = useFocusPassedOn(() => card.current.querySelector(".new > summary"));
  const send = (method, path, body) => call(method, `/webhook-endpoints${path}`, { key: full, body });
  const test = async ({ id }) => {
    if (await act(id, () => send("POST", `/${id}/test`))) say(t("endpoint.tested"));
  };
  // What happened while it was off comes too.
  const enable = ({ id, missed_after: missedAfter }) => act(id, async () => {
    await send("PATCH", `/${id}`, { is_enabled: true });
    if (missedAfter !== null) await send("POST", `/${id}/replay`, { after: missedAfter });
  });
  const rotate = ({ id }) => act(id, async () => show(await send("POST", `/${id}/rotate-secret`, { overlap_seconds: 3600 }), t("secret.signs")));
  return html`<section class="card" ref=${card} ...${passing}><h2>${t("endpoint.title")}</h2>
    <${Problem} error=${error}><button type="button" onClick=${load}>${t("try.again")}</button><//>
    ${!items ? !error && html`<div class="skeleton box" aria-hidden="true" />` : items.length === 0 ? html`<${Empty} title=${t("endpoint.none")}><p>${t("endpoint.none.hint")}</p><//>` : html`<ul class="entries">${items.map((endpoint) => html`<li key=${endpoint.id}>
      <div><strong class="break">${endpoint.url}</strong>${endpoint.disabled_at && html` <em class="badge warn">${t("endpoint.disabled")}</em>`}<p class="aside">${endpoint.description ?? ""} ${endpoint.disabled_reason ? t(`endpoint.reason.${endpoint.disabled_reason}`) : ""}</p></div>
      <div class="row">${endpoint.disabled_at && html`<button type="button" class="primary" onClick=${() => enable(endpoint)}>${t("endpoint.enable")}</button>`}
        <button type="button" disabled=${!endpoint.is_enabled} onClick=${() => test(endpoint)}>${t("endpoint.test")}</button>
        <${Sure} label=${t("keys.rotate")} onSure=${() => rotate(endpoint)} />
        <${Sure} label=${t("keys.delete")} onSure=${() => act(endpoint.id, () => send("DELETE", `/${endpoint.id}`))} /></div>
      ${trouble.of === endpoint.id && html`<${Problem} error=${trouble.error} />`}
      <${Deliveries} full=${full} id=${endpoint.id} /></li>`)}</ul>`}
    <details class="new"><summary>${t("endpoint.new")}</summary><${NewEndpoint} onSend=${async (body) => {
      show(await send("POST", "", body), t("secret.signs"));
      load();
    }} /></details></section>`;
}

function NewEndpoint({ onSend }) {
  const form = useSmallForm({
    blank: BLANK,
    places: { url: "url", description: "description" },
    wrongIn: ({ url }) => (url.trim() ? {} : { url: t("endpoint.url.missing") }),
    send: ({ url, description }) => onSend({ url: url.trim(), ...(description.trim() ? { description } : {}) }),
  });
  return html`<${SmallForm} of=${form} submit=${t("endpoint.make")}>
    <${TextField} of=${form} id="endpoint-url" name="url" label="URL" type="url" placeholder="https://…" />
    <${TextField} of=${form} id="endpoint-description" name="description" label=${t("endpoint.description")} maxlength="200" /><//>`;
}

// Asked for once somebody wants to see them.
function Deliveries({ full, id }) {
  const [items, setItems] = useState(null);
  const [error, setError] = useState(null);
  const load = async (event) => {
    if (!event.target.open) return;
    try {
      setItems((await call("GET", `/webhook-endpoints/${id}/deliveries`, { key: full })).items);
      setError(null);
    } catch (failure) {
      setError(failure);
    }
  };
  return html`<details class="deliveries" onToggle=${load}><summary>${t("delivery.title")}</summary><${Problem} error=${error} />
    ${items?.length === 0 && html`<p class="hint">${t("delivery.none")}</p>`}
    <ul>${(items ?? []).map((one) => html`<li key=${one.id} class="row between"><span><code>${one.type}</code> <span class="aside">${moment(one.created_at)}</span></span>
      <span class="aside">${t("delivery.attempts", { n: one.attempts })} · ${one.attempt_log.at(-1)?.status ?? explainSentence(one.attempt_log.at(-1)?.error) ?? ""} <em class=${one.state === "delivered" ? "badge status-COMPLETED" : "badge"}>${t(`delivery.state.${one.state}`)}</em></span></li>`)}</ul></details>`;
}
