// Which jobs of the history are wanted: what the address says, what the service is asked, and what fits.
import { FINAL, jobs, walkOf } from "./jobs.js";
import { promptOf, titleOf } from "./requests.js";

export const STATES = {
  all: [],
  running: ["QUEUED", "SUBMITTED", "IN_QUEUE", "IN_PROGRESS", "CANCELING"],
  done: ["COMPLETED"],
  failed: ["FAILED", "CANCELED"],
};
export const ANY = { state: "all", type: "", model: "", q: "" };

export function chosenOf(query) {
  const told = Object.fromEntries(new URLSearchParams(query));
  const chosen = Object.fromEntries(Object.entries(ANY).map(([name, any]) => [name, told[name] ?? any]));
  return Object.hasOwn(STATES, chosen.state) ? chosen : { ...chosen, state: ANY.state };
}

export const queryOf = (chosen) => new URLSearchParams(Object.entries(chosen).filter(([name, value]) => value !== ANY[name])).toString();

// What the service is asked for. Texts it does not search: they are looked for in what was loaded.
export function filterOf({ state, type, model }) {
  const asked = [...STATES[state].map((status) => ["status", status]), ["type", type], ["model", model]];
  return asked.filter(([, value]) => value).map(([name, value]) => `&${name}=${encodeURIComponent(value)}`).join("");
}

export function foundOf(chosen) {
  const { byId, order } = jobs.get();
  const { cursor, hasMore } = walkOf(filterOf(chosen));
  // Behind the place to which the list was read there may be others that nobody has asked for yet.
  return order.filter((id) => !hasMore || !cursor || id >= cursor).map((id) => byId.get(id)).filter((job) => fits(job, chosen));
}

function fits(job, { state, type, model, q }) {
  const isOfState = state === "all" || (state === "running" ? !FINAL.has(job.status) : STATES[state].includes(job.status));
  if (!isOfState || (type && job.type !== type) || (model && job.model_id !== model)) return false;
  const text = q.trim().toLowerCase();
  return !text || [promptOf(job), titleOf(job), job.model_id, job.job_id, job.fal_request_id ?? ""].some((one) => one.toLowerCase().includes(text));
}
