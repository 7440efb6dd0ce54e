// What came of the form: the newest run above, and those before it in a grid.
import { again, catalogue, modelBy } from "./draft.js";
import { DropTargets } from "./drop.js";
import { factsOf } from "./files.js";
import { JobCard, UnsentCard } from "./gallery.js";
import { html, useEffect, useMemo, useRef } from "./html.js";
import { jobs } from "./jobs.js";
import { priceRange } from "./models.js";
import { useFocusPassedOn } from "./parts.js";
import { unsent } from "./runs.js";
import { ratioOf, wordsOf } from "./schema.js";
import { useStore } from "./store.js";
import { t } from "./text.js";

const SHOWN = 24;

export function Results() {
  const { byId, order, isLoaded } = useStore(jobs);
  const { items, started } = useStore(unsent);
  const runs = [...items.map((item) => ({ id: item.id, item })), ...order.slice(0, SHOWN).map((id) => ({ id, job: byId.get(id) }))];
  const [newest, ...others] = runs;
  const box = useRef(null);
  const focused = useRef(null);
  // A run that ends has another card, and the focus stays with the run.
  const passing = useFocusPassedOn(() => box.current?.querySelector(`[data-run="${focused.current}"] button`) ?? document.querySelector(".pay .primary"));
  const onFocusIn = (event) => {
    focused.current = event.target.closest("[data-run]")?.dataset.run;
    passing.onFocusIn(event);
  };
  const seen = useRef(started);
  useEffect(() => {
    // Once it is there: whoever has looked further down, or has the form alone in sight, sees it begin.
    if (started !== seen.current) bringIntoView(box.current?.querySelector(".newest"));
    seen.current = started;
  }, [started]);
  return html`<section class="results" id="results" aria-label=${t("results")}>
    <${DropTargets} />
    ${isLoaded && !newest ? html`<${Start} />`
      : html`<div class="runs" ref=${box} onFocusIn=${onFocusIn} onFocusOut=${passing.onFocusOut}>
        ${newest ? html`<${Stage} key=${newest.id} run=${newest} />` : html`<div class="newest"><div class="skeleton stage" aria-hidden="true" /></div>`}
        <div class="grid">${others.map(({ id, item, job }) => (item ? html`<${UnsentCard} key=${id} item=${item} />` : html`<${JobCard} key=${id} job=${job} />`))}</div>
      </div>
      ${order.length > SHOWN && html`<p class="center"><a class="button" href="#/history">${t("results.all")}</a></p>`}`}
  </section>`;
}

function Stage({ run: { item, job } }) {
  const model = modelBy(item?.model ?? job.model_id);
  const input = item?.body ?? job.input;
  // As it was when the run came here: what comes later moves nothing.
  const stage = useMemo(() => ({ "--ratio": String(shapeOf(model, input ?? {}, job)), "--frames": (job?.outputs?.length || input?.num_images) > 1 ? "6rem" : "0rem" }), [model, !input]);
  return item ? html`<${UnsentCard} item=${item} stage=${stage} />` : html`<${JobCard} job=${job} stage=${stage} />`;
}

// Width to height.
function shapeOf(model, input, job) {
  const [made] = job?.outputs ?? [];
  if (made?.width) return made.width / made.height;
  const given = factsOf(input.image_url ?? input.image_urls?.[0]);
  return ratioOf(model, input) ?? (given?.width ? given.width / given.height : undefined) ?? ((model?.type ?? job?.type ?? "").endsWith("VIDEO") ? 16 / 9 : 1);
}

function bringIntoView(element) {
  if (!element) return;
  const { top, bottom } = element.getBoundingClientRect();
  const covered = parseFloat(getComputedStyle(document.documentElement).scrollPaddingTop);
  if (top >= covered && bottom <= window.innerHeight) return;
  const isCalm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  element.scrollIntoView({ behavior: isCalm ? "auto" : "smooth", block: "start" });
}

// Something to begin with, of the default of each type and of what is cheapest: each in the words of the catalogue's own example.
function Start() {
  const { models } = useStore(catalogue);
  const defaults = (models ?? []).filter((model) => model.is_default);
  const cheap = [...(models ?? [])].filter((model) => !model.is_default && !model.is_paused).sort((one, other) => one.price.from_tokens - other.price.from_tokens);
  const shown = [...cheap.filter(({ type }) => type.startsWith("TEXT_TO_IMAGE")).slice(0, 1), ...defaults, ...cheap.filter(({ type }) => type === "TEXT_TO_VIDEO").slice(0, 1)];
  const take = (model) => {
    again({ type: model.type, model, values: wordsOf(model) });
    // Once its form is drawn.
    setTimeout(() => (document.querySelector(".media button") ?? document.querySelector(".pay .primary"))?.focus(), 100);
  };
  return html`<div class="empty"><h2>${t("results.empty")}</h2><p>${t("results.empty.hint")}</p>
    <ul class="examples">${shown.map((model) => html`<li key=${model.model}><button type="button" onClick=${() => take(model)}>
      <span class="aside">${t(`type.${model.type}`)} · ${model.title}</span><span>${model.example.prompt}</span><span class="aside number">${priceRange(model.price)}${model.type.startsWith("IMAGE") && html` · ${t("example.media")}`}</span></button></li>`)}</ul></div>`;
}
