// What is shown once: the page keeps it in memory alone, until its owner says that it is saved.
import { html, useState } from "./html.js";
import { Copy, Dialog } from "./parts.js";
import { onLeave } from "./session.js";
import { createStore, useStore } from "./store.js";
import { t } from "./text.js";

const shown = createStore({ items: [] });
onLeave(() => shown.set({ items: [] }));

// One after the other: the answer to a second press must not take the first secret away.
export function showSecret({ title, secret, why }) {
  shown.set({ items: [...shown.get().items, { title, secret, why }] });
}

const showNext = () => shown.set({ items: shown.get().items.slice(1) });

export function Secret() {
  const [item] = useStore(shown).items;
  return item && html`<${Box} key=${item.secret} item=${item} />`;
}

function Box({ item }) {
  const [isHeld, setHeld] = useState(false);
  return html`<${Dialog} title=${item.title} describedBy="secret-why" onHeld=${() => setHeld(true)}>
    <p id="secret-why"><strong>${t("secret.once")}</strong> ${item.why}</p>
    <div class="secret"><code>${item.secret}</code><${Copy} text=${item.secret} label=${t("copy")} isFirst=${true} /></div>
    <div role="alert">${isHeld && html`<p class="notice">${t("secret.held")}</p>`}</div>
    <button type="button" class="primary" onClick=${showNext}>${t("secret.saved")}</button>
  <//>`;
}
