// The library, in the one form in which the page uses it.
import { h, render } from "./vendor/preact.js";
import htm from "./vendor/htm.js";

export { render };
export * from "./vendor/hooks.js";
export const html = htm.bind(h);
