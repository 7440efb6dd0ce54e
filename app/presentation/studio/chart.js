// The course of the balance over the entries that were loaded.
import { html } from "./html.js";
import { language, number, t, tokens } from "./text.js";

const WIDTH = 720;
const HEIGHT = 180;
const STEPS = 4;

// A balance jumps: it is drawn as steps.
export function Chart({ entries }) {
  const points = [...entries].reverse().map((entry) => ({ at: Date.parse(entry.created_at), tokens: entry.balance_after }));
  const first = points[0].at;
  const last = Math.max(Date.now(), first + 1);
  const marks = marksOf(points.map((point) => point.tokens));
  const [bottom, top] = [marks[0], marks.at(-1)];
  const x = (at) => ((at - first) / (last - first)) * WIDTH;
  const y = (value) => HEIGHT - ((value - bottom) / (top - bottom)) * HEIGHT;
  const steps = points.map((point, place) => `${place ? "H" : "M"}${x(point.at).toFixed(1)}${place ? `V${y(point.tokens).toFixed(1)}` : `,${y(point.tokens).toFixed(1)}`}`).join("");
  const line = `${steps}H${WIDTH}`;
  const day = new Intl.DateTimeFormat(language.get().name, last - first > 172_800_000 ? { day: "numeric", month: "short" } : { hour: "2-digit", minute: "2-digit" });
  const summary = t("chart.summary", { from: tokens(points[0].tokens), to: tokens(points.at(-1).tokens), n: points.length });
  // What is filled down to a line that is not zero looks like more or less than it is.
  return html`<figure class="chart-box">
    <div class="chart-scale number" aria-hidden="true">${[...marks].reverse().map((mark) => html`<span key=${mark}>${number(mark)}</span>`)}</div>
    <svg class="chart" viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label=${summary}>
      ${marks.map((mark) => html`<line key=${mark} x1="0" x2=${WIDTH} y1=${y(mark)} y2=${y(mark)} />`)}
      ${bottom <= 0 && html`<path class="area" d=${`${line}V${y(0)}H0Z`} />`}<path class="curve" d=${line} />
    </svg>
    <figcaption class="row between aside number"><span>${day.format(first)}</span><span>${t(bottom > 0 ? "chart.caption.above" : "chart.caption", { from: number(bottom) })}</span><span>${t("now")}</span></figcaption>
  </figure>`;
}

// Round numbers, evenly, around all values: from zero, unless little has moved far above it.
export function marksOf(values) {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const isFar = least > 0 && least < most && most - least < most / 3;
  const step = niceAbove(Math.max(1, (most - Math.min(isFar ? least : 0, least)) / STEPS));
  const bottom = Math.floor(Math.min(isFar ? least : 0, least) / step);
  const top = Math.max(Math.ceil(most / step), bottom + 1);
  return Array.from({ length: top - bottom + 1 }, (_, place) => (bottom + place) * step);
}

function niceAbove(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}
