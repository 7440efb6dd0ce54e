// What a job was asked for, and asking for it again.
import { again, draft, modelBy, modelsOf } from "./draft.js";

export const titleOf = (job) => modelBy(job.model_id)?.title ?? job.model_id;
export const promptOf = (job) => job.input?.prompt ?? job.result?.prompt ?? job.result?.actual_prompt ?? "";
export const seedOf = (job) => job.result?.seed ?? job.result?.seeds?.[0];

const isGone = (value) => value === null || (Array.isArray(value) && value.includes(null));

// As one would ask again: what the model fills in by itself is left out, and so is what is there no more.
export function requestOf(job) {
  const fields = modelBy(job.model_id)?.parameters.properties ?? {};
  const told = Object.entries(job.input ?? { prompt: promptOf(job) || null })
    .map(([name, value]) => [name, Array.isArray(value) ? value.filter((one) => one !== null) : value])
    .filter(([name, value]) => value !== null && value.length !== 0 && JSON.stringify(value) !== JSON.stringify(fields[name]?.default));
  return { type: job.type, model: job.model_id, body: Object.fromEntries(told) };
}

export const isToldWhole = (job) => Boolean(job.input && modelBy(job.model_id)) && !Object.values(job.input).some(isGone);

export function startAgain(job, extra = {}) {
  again({ type: job.type, model: modelBy(job.model_id), values: { ...requestOf(job).body, ...extra } });
  goToForm();
}

export function useAsInput(job, place, type) {
  const target = draft.get().type === type ? draft.get().model : modelsOf(type).find(({ is_default: isDefault }) => isDefault) ?? modelsOf(type)[0];
  const name = `output:${job.job_id}/${place}`;
  // What the draft has was written for something else, unless it is what this picture was made of.
  const { prompt } = draft.get().values;
  const kept = prompt && prompt === promptOf(job) ? { prompt } : {};
  again({ type, model: target, values: { ...kept, image_url: name, image_urls: [name] } });
  goToForm();
}

function goToForm() {
  location.hash = "#/create";
  scrollTo({ top: 0 });
  // Once the form is drawn, and a dialog before it has gone.
  setTimeout(() => document.getElementById("field-prompt")?.focus({ preventScroll: true }), 100);
}
