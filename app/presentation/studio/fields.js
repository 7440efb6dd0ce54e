// One field of a form, drawn from its schema.
import { Icon } from "./icons.js";
import { html } from "./html.js";
import { MediaField } from "./media.js";
import { Segments } from "./parts.js";
import { freeSizeOf, isSeed, presetsOf } from "./schema.js";
import { explainField, localized, t } from "./text.js";

const SEGMENTS_MAX = 6;
const SEGMENT_LETTERS_MAX = 34;
const SLIDER_STEPS_MAX = 100;

export function Field({ field, value, onChange, errors }) {
  const { name, schema, isRequired, kind } = field;
  const id = `field-${name}`;
  const label = localized(schema["x-label"], schema.title ?? name);
  const hint = localized(schema["x-description"], schema.description);
  const own = errors.filter(({ pointer }) => pointer.split("/")[1] === name);
  const described = own.length ? `${id}-error ${id}-hint` : `${id}-hint`;
  // What to write stands where it is written.
  const isPrompt = name === "prompt";
  const shared = { id, label, hint, schema, value, onChange, described, field, isInvalid: own.length > 0, wrong: new Set(own.map(({ pointer }) => pointer)) };
  // That it may be left out is one of the choices.
  const isChosen = kind === "choice" || kind === "switch" || kind === "size";
  const isGroup = isChosen || kind.startsWith("media");
  return html`<div class=${`field field-${kind}`}>
    <div class="label-line">
      ${isGroup ? html`<span class="label" id=${`${id}-label`}>${label}</span>` : html`<label for=${id}>${label}</label>`}
      ${!isRequired && !isChosen && value === undefined && schema.default === undefined && html`<span class="aside">${t("field.optional")}</span>`}
    </div>
    <${WIDGETS[kind]} ...${shared} />
    ${own.length > 0 && html`<div id=${`${id}-error`}>${own.map((found) => html`<p class="field-error" key=${found.pointer + found.code}>${explainField(found)}</p>`)}</div>`}
    <p class=${isPrompt ? "unseen" : "hint"} id=${`${id}-hint`}>${hint}</p>
  </div>`;
}

function Text({ id, hint, schema, value = "", onChange, described, isInvalid }) {
  const left = schema.maxLength - value.length;
  return html`<div class="text-box">
    <textarea id=${id} class=${id === "field-prompt" ? "long" : ""} rows=${id === "field-prompt" ? 3 : 2} value=${value} placeholder=${id === "field-prompt" ? hint : ""} maxlength=${schema.maxLength} aria-describedby=${described} aria-invalid=${isInvalid}
      dir="auto" onInput=${(event) => onChange(event.target.value)} />
    ${left < 100 && html`<span class="left number">${t("field.left", { n: left })}</span>`}
  </div>`;
}

function Line({ id, schema, value = "", onChange, described, isInvalid }) {
  return html`<input id=${id} value=${value} maxlength=${schema.maxLength} aria-describedby=${described} aria-invalid=${isInvalid} onInput=${(event) => onChange(event.target.value)} />`;
}

function NumberInput({ id, schema, value, onChange, described, field, isInvalid }) {
  const isWhole = schema.type === "integer";
  const step = isWhole ? 1 : "any";
  const isShort = schema.minimum !== undefined && schema.maximum - schema.minimum <= SLIDER_STEPS_MAX;
  const shown = value ?? schema.default ?? "";
  const take = (text) => onChange(text === "" ? undefined : Number(text));
  const sliderStep = isWhole ? 1 : (schema.maximum - schema.minimum) / 100;
  return html`<div class="number-box">
    ${isShort && html`<input type="range" aria-labelledby=${id} tabindex="-1" aria-hidden="true" min=${schema.minimum} max=${schema.maximum} step=${sliderStep}
      value=${value ?? schema.default ?? schema.minimum} onInput=${(event) => take(event.target.value)} />`}
    <input id=${id} class="number" type="number" inputmode=${isWhole ? "numeric" : "decimal"} min=${schema.minimum} max=${schema.maximum} step=${step}
      value=${isShort ? shown : value ?? ""} placeholder=${isSeed(field) ? t("seed.random") : schema.default ?? t("field.by_model")}
      aria-describedby=${described} aria-invalid=${isInvalid} onInput=${(event) => take(event.target.value)} />
    ${isSeed(field) && html`<button type="button" class="bare" aria-label=${t("seed.roll")} title=${t("seed.roll")}
        onClick=${() => onChange(Math.floor(Math.random() * Math.min(schema.maximum ?? 2 ** 31, 2 ** 31)))}><${Icon} name="dice" /></button>
      ${value !== undefined && html`<button type="button" class="bare" aria-label=${t("seed.clear")} title=${t("seed.clear")} onClick=${() => onChange(undefined)}><${Icon} name="close" /></button>`}`}
  </div>`;
}

function Switch({ id, label, schema, value, onChange, described }) {
  if (schema.default !== undefined) {
    const isOn = value ?? schema.default;
    return html`<label class="switch"><input type="checkbox" role="switch" aria-labelledby=${`${id}-label`} aria-describedby=${described} checked=${isOn}
      onChange=${(event) => onChange(event.target.checked === schema.default ? undefined : event.target.checked)} /><span>${isOn ? t("on") : t("off")}</span></label>`;
  }
  const options = [[undefined, t("field.by_model")], [true, t("on")], [false, t("off")]];
  return html`<${Segments} label=${label} name=${id} options=${options} value=${value} onChange=${onChange} describedBy=${described} />`;
}

function Choice({ id, label, schema, value, onChange, described, isInvalid }) {
  const shown = value ?? schema.default;
  const sizes = schema["x-sizes"];
  const letters = schema.enum.join("").length;
  const take = (chosen) => onChange(chosen === schema.default ? undefined : chosen);
  const options = schema.enum.map((one) => [one, titleOf(one, sizes?.[one]), html`<${Shape} of=${sizes?.[one] ?? one} />`]);
  if (schema.default === undefined) options.unshift([undefined, t("field.by_model"), null]);
  if (options.length <= SEGMENTS_MAX && letters <= SEGMENT_LETTERS_MAX && !sizes) {
    return html`<${Segments} label=${label} name=${id} options=${options} value=${shown} onChange=${take} describedBy=${described} />`;
  }
  return html`<select id=${id} aria-labelledby=${`${id}-label`} aria-describedby=${described} aria-invalid=${isInvalid}
    onChange=${(event) => take(options[event.target.selectedIndex][0])}>
    ${options.map(([one, text]) => html`<option key=${String(one)} selected=${one === shown}>${text}</option>`)}
  </select>`;
}

// A ratio is seen sooner than read.
function Shape({ of }) {
  const [width, height] = typeof of === "object" ? [of.width, of.height] : String(of).split(":").map(Number);
  if (!width || !height) return null;
  const scale = 14 / Math.max(width, height);
  return html`<span class="shape" aria-hidden="true" style=${{ width: `${width * scale}px`, height: `${height * scale}px` }} />`;
}

function titleOf(value, size) {
  const words = String(value).replaceAll("_", " ");
  return size ? `${words} · ${size.width} × ${size.height}` : words;
}

function Size(props) {
  const { id, label, schema, value, onChange, described } = props;
  const presets = presetsOf(schema);
  const free = freeSizeOf(schema);
  const isFree = typeof value === "object";
  const first = presets && { width: 1024, height: 1024 };
  const options = [[undefined, t("field.by_model")], ...(presets?.enum ?? []).map((one) => [one, titleOf(one, presets["x-sizes"]?.[one])]), ["free", t("size.free")]];
  if (schema.default !== undefined) options.shift();
  const take = (chosen) => {
    if (chosen === "free") onChange(first ?? { width: free.properties.width.minimum, height: free.properties.height.minimum });
    else onChange(chosen === schema.default ? undefined : chosen);
  };
  const current = isFree ? "free" : value ?? schema.default;
  const side = (name) => html`<label>${t(`size.${name}`)}<input type="number" class="number" min=${free.properties[name].minimum} max=${free.properties[name].maximum}
    value=${value[name]} onInput=${(event) => onChange({ ...value, [name]: Number(event.target.value) })} /></label>`;
  return html`<select id=${id} aria-labelledby=${`${id}-label`} aria-describedby=${described} onChange=${(event) => take(options[event.target.selectedIndex][0])}>
      ${options.map(([one, text]) => html`<option key=${String(one)} selected=${one === current}>${text}</option>`)}
    </select>
    ${isFree && html`<div class="sides" role="group" aria-label=${label}>${side("width")}<span aria-hidden="true">×</span>${side("height")}</div>`}`;
}

const WIDGETS = {
  text: Text, line: Line, number: NumberInput, switch: Switch, choice: Choice, size: Size,
  media: (props) => html`<${MediaField} ...${props} isList=${false} />`,
  "media-list": (props) => html`<${MediaField} ...${props} isList=${true} />`,
};
