// Drawn here, so that nothing is loaded for them. They say nothing to a screen reader: what they are in has a name.
import { html } from "./html.js";

const PATHS = {
  close: "M6 6l12 12M18 6L6 18",
  dice: "M4 4h16v16H4zM9 9h.01M15 15h.01M15 9h.01M9 15h.01",
  download: "M12 4v11m-5-5 5 5 5-5M5 20h14",
  play: "M8 5v14l11-7z",
  image: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15 9h.01",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  again: "M4 12a8 8 0 0 1 14-5l2 2M20 4v5h-5M20 12a8 8 0 0 1-14 5l-2-2M4 20v-5h5",
  search: "M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14zM21 21l-5-5",
  down: "M6 9l6 6 6-6",
  left: "M15 5l-7 7 7 7",
  right: "M9 5l7 7-7 7",
  plus: "M12 5v14M5 12h14",
  check: "M5 12l5 5 9-11",
  use: "M4 12h12m-5-5 5 5-5 5M20 5v14",
  out: "M10 5H5v14h5M14 8l4 4-4 4M18 12H9",
  stop: "M6 6h12v12H6z",
};

export function Icon({ name }) {
  return html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false"><path d=${PATHS[name]} /></svg>`;
}
