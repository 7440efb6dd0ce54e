// The page's main place: the form to the left, what came of it to the right.
import { budget, budgetLeft } from "./budget.js";
import { catalogue, chooseType, draft, loadCatalogue, setValue, setValues, change } from "./draft.js";
import { Field } from "./fields.js";
import { unfitIn, uploaded } from "./files.js";
import { asCurl, asPython } from "./code.js";
import { html, useEffect, useRef, useState } from "./html.js";
import { jobs } from "./jobs.js";
import { ModelButton } from "./models.js";
import { Copy, Empty, Problem, Segments, say } from "./parts.js";
import { useQuote } from "./quote.js";
import { Results } from "./results.js";
import { start } from "./runs.js";
import { TYPES, bodyOf, carriedOver, fieldsOf, groupsOf, missingIn, wordsOf } from "./schema.js";
import { mayGenerate } from "./session.js";
import { useStore } from "./store.js";
import { explain, explainField, has, t, tokens } from "./text.js";

const IS_MAC = navigator.platform.startsWith("Mac");
const AGAIN_MS = 1000;

export function Create() {
  return html`<main class="create" id="main"><${Form} /><${Results} /></main>`;
}

function Form() {
  const { models, failed } = useStore(catalogue);
  const { type, model, values, errors, view, text } = useStore(draft);
  const { balance } = useStore(jobs);
  const [asked, setAsked] = useState(0);
  const quote = useQuote(model, values, asked);
  useStore(uploaded);
  const pressed = useRef({});
  const [refusal, setRefusal] = useState(null);
  const [isWanted, setWanted] = useState(false);
  const form = useRef(null);
  useEffect(() => {
    setRefusal(null);
    setWanted(false);
  }, [values, model]);
  useEffect(() => {
    if (!isWanted || quote.isAsking) return;
    setWanted(false);
    if (quote.price && !(quote.price.cost_tokens > balance)) generate();
  }, [isWanted, quote.isAsking]);
  if (failed) return html`<section class="form card"><${Empty} title=${t("catalogue.failed")}><button type="button" onClick=${loadCatalogue}>${t("try.again")}</button><//></section>`;
  const fields = model ? fieldsOf(model) : [];
  const known = new Set(fields.map(({ name }) => name));
  const unfit = model ? unfitIn(model, values) : [];
  const found = [...errors, ...(quote.error?.fields ?? []), ...unfit];
  // What JSON can hold the form may not be able to show.
  const stray = found.filter(({ pointer, code }) => code === "studio_json" || (view !== "json" && !known.has(pointer.split("/")[1])));
  const showErrors = (fieldErrors, told = fieldErrors) => {
    change({ errors: told, view: view === "json" ? "json" : "form" });
    requestAnimationFrame(() => {
      const first = document.getElementById(`field-${fieldErrors[0].pointer.split("/")[1]}`);
      first?.closest("details")?.setAttribute("open", "");
      first?.focus();
    });
  };
  const generate = async () => {
    if (!mayGenerate()) return undefined;
    setRefusal(null);
    const missing = missingIn(model, values);
    // What does not fit is told already.
    if (missing.length || unfit.length) return showErrors([...missing, ...unfit], missing);
    // Nothing is started at a price that is not known.
    if (quote.isAsking) return setWanted(true);
    if (!quote.price) return undefined;
    // A press that is one too many, or a key that is held down, is no further wish.
    const before = pressed.current;
    pressed.current = { values, model, at: Date.now() };
    if (before.values === values && before.model === model && Date.now() - before.at < AGAIN_MS) return undefined;
    try {
      await start(model, bodyOf(model, values), quote.price.cost_tokens);
    } catch (error) {
      pressed.current = {};
      const inForm = (error.fields ?? []).filter(({ pointer }) => known.has(pointer.split("/")[1]));
      if (inForm.length) return showErrors(inForm);
      if (error.code === "price_exceeds_maximum") setAsked((times) => times + 1);
      setRefusal(error);
      say(explain(error), "bad");
    }
    return undefined;
  };
  const onSubmit = (event) => {
    event.preventDefault();
    if (takeText(text, model, false)) generate();
  };
  const onKeyDown = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.current.requestSubmit();
  };
  return html`<form class="form card" ref=${form} onSubmit=${onSubmit} onKeyDown=${onKeyDown} novalidate>
    <h1 class="unseen">${t("nav.create")}</h1>
    <div class="types" role="radiogroup" aria-label=${t("type.label")}>
      ${TYPES.map((one) => html`<label key=${one} class=${one === type ? "on" : ""}><input type="radio" name="type" checked=${one === type} disabled=${!models} onChange=${() => chooseType(one)} />
        <span>${t(`type.${one}`)}</span></label>`)}
    </div>
    <div class="field"><div class="label-line"><span class="label">${t("model.label")}</span></div><${ModelButton} model=${model} type=${type} /></div>
    ${!model ? html`<${FormSkeleton} />` : html`
      <div class="row between form-tools">
        <${Segments} label=${t("form.view")} name="view" value=${view} options=${[["form", t("form.form")], ["json", "JSON"], ["code", t("form.code")]]} onChange=${(chosen) => takeText(text, model, true) && change({ view: chosen })} />
        <div class="row"><button type="button" class="quiet" onClick=${() => setValues(wordsOf(model))}>${t("form.example")}</button>
        <button type="button" class="quiet" disabled=${!Object.keys(values).length} onClick=${() => setValues({})}>${t("form.reset")}</button></div>
      </div>
      ${view === "json" ? html`<${JsonForm} model=${model} values=${values} text=${text} errors=${found} />`
        : view === "code" ? html`<${Code} request=${{ type, model: model.model, body: bodyOf(model, values) }} />`
        : groupsOf(fields).map(([group, members]) => html`<${Group} key=${group} group=${group} set=${members.filter(({ name }) => values[name] !== undefined).length} isOpen=${group !== "more" || members.some(({ name }) => found.some(({ pointer }) => pointer === `/${name}`))}>
          ${members.map((field) => html`<${Field} key=${`${model.model} ${field.name}`} field=${field} value=${values[field.name]} errors=${found} onChange=${(value) => setValue(field.name, value)} />`)}
        <//>`)}
      <${Pay} model=${model} quote=${quote} isWanted=${isWanted} balance=${balance} refusal=${refusal} stray=${stray} wrong=${view === "json" && !quote.price ? found.length - stray.length : 0} />`}
  </form>`;
}

function Group({ group, set, isOpen, children }) {
  if (group !== "more") return html`<div class="group">${children}</div>`;
  return html`<details class="group more" open=${isOpen}><summary>${t("form.more")}${set > 0 && html` <span class="aside">${t("form.more.set", { n: set })}</span>`}</summary>${children}</details>`;
}

// Raises where it is no body of a generation.
function parsed(text) {
  const body = JSON.parse(text);
  if (body === null || typeof body !== "object" || Array.isArray(body)) throw new SyntaxError("not an object");
  const { model: _, type: __, ...values } = body;
  return values;
}

// When the text is left: whatever the form cannot show is left out.
function takeText(text, model, isLeft) {
  if (text === null) return true;
  try {
    const values = parsed(text);
    if (isLeft) change({ values: carriedOver(values, model), errors: [], text: null });
    return true;
  } catch {
    change({ errors: [{ pointer: "", code: "studio_json", detail: t("form.json.invalid") }] });
    return false;
  }
}

function JsonForm({ model, values, text, errors }) {
  const shown = text ?? JSON.stringify(bodyOf(model, values), null, 2);
  const onInput = (event) => {
    const typed = event.target.value;
    try {
      change({ values: parsed(typed), text: typed, errors: [] });
    } catch {
      change({ text: typed });
    }
  };
  const wrong = errors.filter(({ code }) => code !== "studio_json");
  return html`<div class="field"><label for="json">${t("form.json")}</label>
    <div id="json-errors" role="alert">${wrong.map((found) => html`<p class="field-error" key=${found.pointer + found.code}><code>${found.pointer}</code> ${explainField(found)}</p>`)}</div>
    <textarea id="json" class="code" rows="14" spellcheck="false" value=${shown} aria-describedby="json-errors" aria-invalid=${wrong.length > 0} onInput=${onInput} />
  </div>`;
}

export function Code({ request }) {
  return html`<div class="code-lines"><p class="hint">${t("code.hint")}</p>
    ${[["curl", asCurl(request)], ["Python", asPython(request)]].map(([name, text]) => html`<div key=${name}>
      <div class="row between"><strong>${name}</strong><${Copy} text=${text} label=${t("copy")} /></div><pre tabindex="0" role="region" aria-label=${name}>${text}</pre></div>`)}</div>`;
}

// What it costs and why, beside the button that spends it.
function Pay({ model, quote, isWanted, balance, refusal, stray, wrong }) {
  const { price, error, isAsking } = quote;
  const missing = price && balance !== null ? price.cost_tokens - balance : 0;
  useStore(budget);
  const left = budgetLeft();
  const isOverBudget = price && left !== null && price.cost_tokens > left;
  const may = mayGenerate();
  const label = isWanted ? t("generate.pricing") : price && !isAsking ? t("generate.for", { tokens: tokens(price.cost_tokens) }) : t("generate");
  return html`<div class="pay">
    ${wrong > 0 && html`<p class="field-error">${t("generate.wrong", { n: wrong })}</p>`}
    ${stray.map((found) => html`<p class="field-error" key=${found.code}>${explainField(found)}</p>`)}
    ${error && !error.fields?.length && html`<${Problem} error=${error} />`}
    <dl class=${isAsking ? "lines asking" : "lines"} aria-live="polite">
      ${(price?.price ?? []).map((line) => html`<div key=${line.line}><dt>${lineName(line)} <span class="aside">${lineSum(line)}</span></dt><dd class="number">${tokens(line.tokens)}</dd></div>`)}
      ${!price && isAsking && html`<div class="skeleton line" />`}
    </dl>
    ${missing > 0 && html`<p class="problem" role="status">${t("generate.missing", { tokens: tokens(missing), balance: tokens(balance) })}</p>`}
    ${isOverBudget && missing <= 0 && html`<p class="problem" role="status">${t("generate.over_budget", { left: tokens(left) })}</p>`}
    ${model.is_paused && html`<p class="notice" role="status">${t("model.paused.hint")}</p>`}
    ${!may && html`<p class="notice">${t("generate.read_only")}</p>`}
    <${Problem} error=${refusal} />
    <button class="primary big" aria-keyshortcuts="Control+Enter Meta+Enter" title=${IS_MAC ? "⌘ Enter" : "Ctrl+Enter"} aria-busy=${isWanted}
      disabled=${!may || missing > 0 || isOverBudget || (!price && !isAsking)}>${label}</button>
    <p class="hint center pay-hint">${t("generate.hint")}</p>
  </div>`;
}

// The names of lines are words of the catalogue, which the operator may add to.
export const lineName = ({ line }) => (has(`line.${line}`) ? t(`line.${line}`) : (line.charAt(0).toUpperCase() + line.slice(1)).replaceAll("_", " "));

export function lineSum({ quantity, unit, unit_tokens: each, factor }) {
  const sum = `${t(`unit.${unit}`, { n: quantity })} × ${tokens(each)}`;
  return factor === "1" ? sum : `${sum} × ${factor}`;
}

function FormSkeleton() {
  return html`<div class="skeleton box" aria-hidden="true" /><div class="skeleton box" aria-hidden="true" />`;
}
