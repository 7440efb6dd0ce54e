// Sending a generation, once, whatever happens to the network or the page in between.
import { ask, problemOf, uuid } from "./api.js";
import { loadJob, put, read, rememberRequest, write } from "./jobs.js";
import { keyOf, noteRefusal, tell } from "./session.js";
import { PATHS } from "./schema.js";
import { createStore } from "./store.js";

const ITEM = "tollgate.unsent";
// The service knows a key for a day at least.
const KEPT_MS = 20 * 3_600_000;

export const unsent = createStore({ items: [] });
const sending = new Set();

function keep(items) {
  unsent.set({ items });
  write(ITEM, items);
}

// Of a page that was left before its answer came: the same key leads to the same job.
export function resumeUnsent() {
  const items = (read(ITEM) ?? []).filter(({ at }) => Date.now() - at < KEPT_MS);
  keep(items);
  for (const item of items) send(item).catch(() => {});
}

export function start(model, body, maxCost) {
  const item = { id: uuid(), type: model.type, model: model.model, body, maxCost, at: Date.now() };
  keep([item, ...unsent.get().items]);
  return send(item);
}

async function send(item) {
  if (sending.has(item.id)) return undefined;
  sending.add(item.id);
  try {
    for (let attempt = 0; ; attempt += 1) {
      const outcome = await attemptOf(item);
      if (outcome.job) return outcome.job;
      if (!outcome.isWorthRepeating || !keyOf()) throw outcome.error;
      note(item, outcome.error.code);
      const wait = outcome.error.retryAfter ? outcome.error.retryAfter * 1000 : Math.min(8000, 500 * 2 ** attempt);
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, wait);
        window.addEventListener("online", () => resolve(clearTimeout(timer)), { once: true });
      });
    }
  } finally {
    sending.delete(item.id);
    keep(unsent.get().items.filter(({ id }) => id !== item.id));
  }
}

function note(item, trouble) {
  unsent.set({ items: unsent.get().items.map((one) => (one.id === item.id ? { ...one, trouble } : one)) });
}

async function attemptOf(item) {
  const body = { ...item.body, model: item.model, max_cost_tokens: item.maxCost };
  try {
    const key = keyOf();
    const answer = await ask("POST", PATHS[item.type], { key, body, headers: { "Idempotency-Key": item.id } });
    if (!answer.ok) {
      const error = noteRefusal(await problemOf(answer));
      return { error, isWorthRepeating: error.status === 503 || (error.status === 429 && error.retryAfter > 0 && error.code !== "too_many_jobs") };
    }
    const accepted = await answer.json();
    rememberRequest(accepted.job_id, { type: item.type, model: item.model, body: item.body });
    put([{ ...accepted, type: item.type, model_id: item.model, outputs: [], updated_at: accepted.created_at, isOfEvent: true }]);
    tell({ type: "accepted", id: accepted.job_id });
    loadJob(accepted.job_id).catch(() => {});
    return { job: accepted };
  } catch (error) {
    return { error, isWorthRepeating: error.code === "no_connection" };
  }
}
