// The library, in the one form in which the page uses it.
import { Fragment, createRef, h, render } from "./vendor/preact.js";
import htm from "./vendor/htm.js";

export { Fragment, createRef, render };
export * from "./vendor/hooks.js";
export const html = htm.bind(h);
