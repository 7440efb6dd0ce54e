// Pictures that are dropped or pasted anywhere: for a field that takes them, or a type that has such a field.
import { again, chooseType, draft, modelsOf } from "./draft.js";
import { html, useEffect, useState } from "./html.js";
import { say } from "./parts.js";
import { explain, t } from "./text.js";

export const OWN_OUTPUT = "application/x-tollgate-input";
const TARGETS = [["IMAGE_TO_IMAGE", "use.edit"], ["IMAGE_TO_VIDEO", "use.animate"]];
// Longer than between two events of a drag that goes on.
const GONE_MS = 400;

// The fields that are on the page, in their order.
const fields = new Set();
// For a field that is not drawn yet.
let waiting = null;

export function register(field) {
  fields.add(field);
  if (waiting && field.kind === "image") {
    const given = waiting;
    waiting = null;
    give(given);
  }
  return () => fields.delete(field);
}

export const givenBy = (transfer) => {
  const own = transfer?.getData(OWN_OUTPUT);
  // What is dragged from this page some browsers give as a file, too.
  return { own, files: own ? [] : [...(transfer?.files ?? [])] };
};
const isSomething = ({ own, files }) => Boolean(own || files.length);
const mayBePicture = ({ type }) => !type || type.startsWith("image/");

// Each file goes to the first field for its kind that has room. What fits nowhere the first field refuses, and says why.
function give({ own, files }) {
  const all = [...fields];
  const first = all.find(({ kind }) => kind === "image") ?? all[0];
  if (own) (all.find(({ kind, room }) => kind === "image" && room() > 0) ?? first).add(own);
  let left = files;
  for (const field of all) {
    const taken = left.filter(({ type }) => type.startsWith(`${field.kind}/`)).slice(0, field.room());
    if (taken.length) field.take(taken);
    left = left.filter((file) => !taken.includes(file));
  }
  if (left.length) first.take(left);
}

function giveTo(type, { own, files }) {
  for (const file of files.filter((one) => !mayBePicture(one))) say(`${file.name}: ${explain({ code: "studio_not_image" })}`, "bad");
  const given = { own, files: files.filter(mayBePicture) };
  if (!isSomething(given)) return;
  const isThere = draft.get().type === type;
  if (isThere && [...fields].some(({ kind }) => kind === "image")) return give(given);
  waiting = given;
  if (!isThere) chooseType(type);
  // JSON may have held what the form cannot show.
  again(draft.get());
}

const offered = () => TARGETS.filter(([type]) => modelsOf(type).length);

function accept(given) {
  const isAwaited = [...fields].some(({ kind }) => kind === "image" || given.files.some((file) => file.type.startsWith(`${kind}/`)));
  if (isAwaited) return give(given);
  const isFilm = draft.get().type.endsWith("VIDEO");
  const [type] = offered().find(([one]) => one.endsWith("VIDEO") === isFilm) ?? offered()[0] ?? [];
  return type ? giveTo(type, given) : say(t("drop.none"), "bad");
}

const isElsewhere = (event) => event.defaultPrevented || document.querySelector("dialog[open]");

function onPaste(event) {
  const given = givenBy(event.clipboardData);
  if (isElsewhere(event) || !isSomething(given)) return;
  // Some programs copy words as a picture, too.
  if (event.clipboardData.types.includes("text/plain") && event.target.matches?.("input, textarea")) return;
  event.preventDefault();
  accept(given);
}

function onDrop(event) {
  const given = givenBy(event.dataTransfer);
  if (isElsewhere(event) || !isSomething(given)) return;
  event.preventDefault();
  accept(given);
}

// While something is dragged over the page: what can be made of it.
export function DropTargets() {
  const [isDragged, setDragged] = useState(false);
  const [over, setOver] = useState(null);
  useEffect(() => {
    let timer;
    const end = () => { clearTimeout(timer); setDragged(false); setOver(null); };
    const onDragOver = ({ dataTransfer }) => {
      if (!["Files", OWN_OUTPUT].some((type) => dataTransfer?.types.includes(type)) || document.querySelector("dialog[open]")) return;
      clearTimeout(timer);
      setDragged(true);
    };
    // It leaves each thing that it passes. The window it has left if nothing follows.
    const onDragLeave = () => { clearTimeout(timer); timer = setTimeout(end, GONE_MS); };
    const heard = { dragover: onDragOver, dragleave: onDragLeave, dragend: end, drop: end };
    for (const [name, listener] of Object.entries(heard)) window.addEventListener(name, listener, true);
    document.addEventListener("paste", onPaste);
    document.addEventListener("drop", onDrop);
    return () => {
      clearTimeout(timer);
      for (const [name, listener] of Object.entries(heard)) window.removeEventListener(name, listener, true);
      document.removeEventListener("paste", onPaste);
      document.removeEventListener("drop", onDrop);
    };
  }, []);
  if (!isDragged) return null;
  const take = (event, type) => {
    event.preventDefault();
    giveTo(type, givenBy(event.dataTransfer));
  };
  return html`<div class="drop-over"><div class="drop-targets">
    ${offered().map(([type, name]) => html`<div key=${type} class=${over === type ? "drop-target over" : "drop-target"} onDragOver=${() => setOver(type)} onDrop=${(event) => take(event, type)}>${t(name)}</div>`)}</div></div>`;
}
