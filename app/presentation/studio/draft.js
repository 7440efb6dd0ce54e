// What the user is about to ask for. It outlives a reload, and goes at the sign-out.
import { call } from "./api.js";
import { read, write } from "./kept.js";
import { carriedOver } from "./schema.js";
import { accountMark, onLeave } from "./session.js";
import { createStore } from "./store.js";
import { learn } from "./text.js";

const ITEM = "tollgate.draft";

export const catalogue = createStore({ models: null, failed: false });
const NOTHING = { type: "TEXT_TO_IMAGE", model: null, values: {}, errors: [], view: "form", text: null };
export const draft = createStore(NOTHING);
// Whoever signs in next begins with an empty form.
onLeave(() => draft.set(NOTHING));

export async function loadCatalogue() {
  try {
    const { items } = await call("GET", "/models");
    catalogue.set({ models: items, failed: false });
    learn(items.flatMap(({ parameters }) => parameters.allOf ?? []).map((rule) => rule["x-message"]));
    const stored = read(ITEM);
    const kept = stored?.of === accountMark() ? stored : null;
    const model = kept && items.find((one) => one.model === kept.model && one.type === kept.type);
    if (model) draft.set({ type: kept.type, model, values: carriedOver(kept.values ?? {}, model) });
    else chooseType(draft.get().type);
  } catch {
    catalogue.set({ failed: true });
  }
}

export const modelsOf = (type) => (catalogue.get().models ?? []).filter((model) => model.type === type);
export const modelBy = (id) => (catalogue.get().models ?? []).find(({ model }) => model === id);

export function chooseType(type) {
  const fitting = modelsOf(type);
  // Rather the same family than another default.
  const same = fitting.find((model) => model.family && model.family === draft.get().model?.family);
  chooseModel(same ?? fitting.find((model) => model.is_default) ?? fitting[0], type);
}

export function chooseModel(model, type = model.type) {
  change({ type, model, values: model ? carriedOver(draft.get().values, model) : {}, errors: [], text: null });
}

export function setValue(name, value) {
  const { values, errors } = draft.get();
  const left = { ...values, [name]: value };
  if (value === undefined || value === "") delete left[name];
  change({ values: left, errors: errors.filter(({ pointer }) => pointer.split("/")[1] !== name) });
}

export function setValues(values) {
  change({ values, errors: [], text: null });
}

export function again({ model, type, values }) {
  change({ type, model, values: carriedOver(values, model), errors: [], view: "form", text: null });
}

export function change(patch) {
  draft.set(patch);
  const { type, model, values } = draft.get();
  write(ITEM, { type, model: model?.model, values, of: accountMark() });
}
