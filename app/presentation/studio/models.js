// Choosing among the models of a type: by name, price and time.
import { chooseModel, modelsOf } from "./draft.js";
import { Icon } from "./icons.js";
import { html, useMemo, useRef, useState } from "./html.js";
import { Dialog } from "./parts.js";
import { localized, number, secondsRange, t } from "./text.js";

export function priceRange({ from_tokens: from, to_tokens: to }) {
  return from === to ? t("tokens", { n: from }) : t("tokens.range", { from: number(from), n: to });
}

export function timeRange(range) {
  return range ? t("about", { time: secondsRange(range) }) : "";
}

export function ModelButton({ model, type }) {
  const [isOpen, setOpen] = useState(false);
  if (!model) return html`<div class="skeleton model-button" aria-hidden="true" />`;
  return html`<button type="button" class="model-button" aria-haspopup="dialog" title=${localized(model.description)} onClick=${() => setOpen(true)}>
      <span class="model-title">${model.title}${model.is_paused && html` <em class="badge warn">${t("model.paused")}</em>`}</span>
      <span class="aside">${priceRange(model.price)} · ${timeRange(model.typical_seconds)}</span>
      <${Icon} name="down" />
    </button>
    ${isOpen && html`<${Picker} type=${type} current=${model} onClose=${() => setOpen(false)} />`}`;
}

const ORDERS = ["catalogue", "price", "time"];

function Picker({ type, current, onClose }) {
  const [wanted, setWanted] = useState("");
  const [order, setOrder] = useState("catalogue");
  const [active, setActive] = useState(0);
  const list = useRef(null);
  const found = useMemo(() => sorted(search(modelsOf(type), wanted), order), [type, wanted, order]);
  const choose = (model) => {
    chooseModel(model);
    onClose();
  };
  const move = (to) => {
    const place = Math.max(0, Math.min(found.length - 1, to));
    setActive(place);
    list.current?.children[place]?.scrollIntoView({ block: "nearest" });
  };
  const onKeyDown = (event) => {
    if (event.key === "ArrowDown") move(active + 1);
    else if (event.key === "ArrowUp") move(active - 1);
    else if (event.key === "Enter" && found[active]) choose(found[active]);
    else return;
    event.preventDefault();
  };
  return html`<${Dialog} title=${t(`type.${type}`)} onClose=${onClose}>
    <div class="row search"><${Icon} name="search" /><input data-first type="search" role="combobox" aria-expanded="true" aria-controls="models" aria-label=${t("model.search")}
      aria-activedescendant=${found[active] ? `model-${active}` : undefined} placeholder=${t("model.search")} value=${wanted}
      onInput=${(event) => { setWanted(event.target.value); setActive(0); }} onKeyDown=${onKeyDown} />
      <select aria-label=${t("model.order")} onChange=${(event) => setOrder(event.target.value)}>${ORDERS.map((one) => html`<option key=${one} value=${one} selected=${one === order}>${t(`model.order.${one}`)}</option>`)}</select>
    </div>
    ${found.length === 0 && html`<p class="hint" role="status">${t("model.none", { wanted })}</p>`}
    <ul class="models" id="models" role="listbox" aria-label=${t(`type.${type}`)} ref=${list}>
      ${found.map((model, place) => html`<li key=${model.model} id=${`model-${place}`} role="option" aria-selected=${model.model === current.model}
          class=${place === active ? "active" : ""} onClick=${() => choose(model)} onMouseMove=${() => place !== active && setActive(place)}>
        <span class="model-title">${model.title}
          ${model.is_default && html`<em class="badge">${t("model.default")}</em>`}
          ${model.is_paused && html`<em class="badge warn">${t("model.paused")}</em>`}</span>
        <span class="model-figures number">${priceRange(model.price)}<br /><span class="aside">${timeRange(model.typical_seconds)}</span></span>
        <span class="hint">${localized(model.description)}</span>
      </li>`)}
    </ul>
  <//>`;
}

function search(models, wanted) {
  const words = wanted.toLowerCase().split(/\s+/).filter(Boolean);
  return models.filter((model) => {
    const text = [model.title, model.model, model.family, localized(model.description)].join(" ").toLowerCase();
    return words.every((word) => text.includes(word));
  });
}

function sorted(models, order) {
  if (order === "price") return [...models].sort((one, other) => one.price.from_tokens - other.price.from_tokens);
  if (order === "time") return [...models].sort((one, other) => (one.typical_seconds?.to ?? 1e9) - (other.typical_seconds?.to ?? 1e9));
  return models;
}
