// Sending a generation, once, whatever happens to the network or the page in between.
import { NoConnection, ask, problemOf, uuid } from "./api.js";
import { loadJob, put } from "./jobs.js";
import { read, readAll, remove, write } from "./kept.js";
import { say } from "./parts.js";
import { accountMark, keyOf, noteRefusal, onLeave, tell } from "./session.js";
import { PATHS } from "./schema.js";
import { createStore } from "./store.js";
import { pause } from "./stream.js";
import { explain, t } from "./text.js";

// One item for each, so that no tab writes over what another one has not sent yet.
const PREFIX = "tollgate.unsent.";
// The service knows a key for a day at least.
const KEPT_MS = 20 * 3_600_000;

// `started` is the last one that was asked for on this page.
export const unsent = createStore({ items: [], started: null });
const sending = new Set();
// Ends the pause before an item is sent again.
const wakers = new Map();
onLeave(() => unsent.set({ items: [] }));

// Of a page that was left before its answer came: the same key leads to the same job.
export function resumeUnsent() {
  // What another account asked for is not sent in the name of this one.
  for (const item of readAll(PREFIX).filter(({ of }) => of === accountMark())) {
    show(item);
    send(item).catch((error) => say(explain(error), "bad"));
  }
}

export function start(model, body, maxCost) {
  const item = { id: uuid(), type: model.type, model: model.model, body, maxCost, at: Date.now(), of: accountMark() };
  // Without it a reload could not tell whether it was sent.
  if (!write(PREFIX + item.id, item)) throw new BrowserFull();
  show(item);
  unsent.set({ started: item.id });
  return send(item);
}

class BrowserFull extends Error {
  code = "studio_full";
}

class TooOld extends Error {
  code = "studio_too_old";
}

// It may have arrived all the same, and only its answer was lost: whether it has is asked until that is answered.
export function giveUp(item) {
  change(item.id, { isGivenUp: true });
  wakers.get(item.id)?.abort();
}

// As it is by now. Another tab may have given it up, or be done with it: then it is kept no longer.
function current(id) {
  const kept = read(PREFIX + id);
  const shown = unsent.get().items.find((one) => one.id === id);
  return kept && shown ? { ...shown, isGivenUp: Boolean(shown.isGivenUp || kept.isGivenUp) } : null;
}

function change(id, patch) {
  const item = current(id);
  if (!item) return;
  const changed = { ...item, ...patch };
  unsent.set({ items: unsent.get().items.map((one) => (one.id === id ? changed : one)) });
  write(PREFIX + id, changed);
}

function show(item) {
  unsent.set({ items: [item, ...unsent.get().items.filter(({ id }) => id !== item.id)] });
}

async function send(item) {
  if (sending.has(item.id)) return undefined;
  sending.add(item.id);
  const key = keyOf();
  try {
    for (let attempt = 0; ; attempt += 1) {
      const sent = current(item.id);
      if (!sent) return undefined;
      // By then the service may have forgotten the key, and would make it a second time.
      if (Date.now() - sent.at >= KEPT_MS) throw new TooOld();
      const outcome = await attemptOf(sent, key);
      // Whoever is here by now has not asked for it.
      if (key !== keyOf()) return undefined;
      const isGivenUp = current(item.id)?.isGivenUp;
      if (isGivenUp && outcome.job) say(t("run.had_arrived"));
      if (outcome.job) return outcome.job;
      // The one refusal before which the key was looked for.
      if (isGivenUp && outcome.error?.code === "price_exceeds_maximum") return say(t("run.given_up"));
      if (!outcome.isWorthRepeating) throw outcome.error;
      change(item.id, { trouble: outcome.error.code });
      // Given up while it was sent: whether it arrived is asked at once.
      if (isGivenUp && !sent.isGivenUp) continue;
      const waker = new AbortController();
      wakers.set(item.id, waker);
      await pause(outcome.error.retryAfter ? outcome.error.retryAfter * 1000 : Math.min(8000, 500 * 2 ** attempt), waker.signal);
      if (key !== keyOf()) return undefined;
    }
  } finally {
    sending.delete(item.id);
    wakers.delete(item.id);
    if (key === keyOf()) {
      unsent.set({ items: unsent.get().items.filter(({ id }) => id !== item.id) });
      remove(PREFIX + item.id);
    }
  }
}

async function attemptOf(item, key) {
  // A repeat of what was accepted is answered with its job, whatever it may cost by then. What is not known is refused
  // at this price, and is not made.
  const body = { ...item.body, model: item.model, max_cost_tokens: item.isGivenUp ? 0 : item.maxCost };
  try {
    const answer = await ask("POST", PATHS[item.type], { key, body, headers: { "Idempotency-Key": item.id } });
    if (!answer.ok) {
      const error = noteRefusal(await problemOf(answer), key);
      return { error, isWorthRepeating: isOpen(error) };
    }
    const accepted = await answer.json().catch(() => {
      throw new NoConnection();
    });
    if (key !== keyOf()) return {};
    put([{ ...accepted, type: item.type, model_id: item.model, input: item.body, outputs: [], updated_at: accepted.created_at, isOfEvent: true }]);
    tell({ type: "accepted", id: accepted.job_id });
    loadJob(accepted.job_id).catch(() => {});
    return { job: accepted };
  } catch (error) {
    return { error, isWorthRepeating: error.code === "no_connection" };
  }
}

// Whether it may have been accepted all the same, or will be soon: the same key is answered with the same job.
function isOpen({ status, code, retryAfter }) {
  return status >= 500 || code === "idempotency_key_in_use" || (status === 429 && retryAfter > 0 && code !== "too_many_jobs");
}
