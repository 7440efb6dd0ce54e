// Where the page is: in a place such as `#/history?state=failed`, or at a job that was opened on top of one.
import { uuid } from "./api.js";
import { createStore } from "./store.js";

const NAMES = ["create", "history", "ledger", "keys"];

function parsed(hash) {
  const [path, query = ""] = hash.split("?");
  const [, name, id, output] = path.split("/");
  if (name === "job") return { name, query: "", id, output: Number(output) || 0 };
  return NAMES.includes(name) ? { name, query } : { name: NAMES[0], query: "" };
}

const hashOf = ({ name, query }) => `#/${name}${query ? `?${query}` : ""}`;

// How far down each entry of the tab's history was left.
const depths = new Map();
let entry = null;
export const depth = () => depths.get(entry) ?? 0;
window.addEventListener("scroll", () => depths.set(entry, window.scrollY), { passive: true });

function noteEntry(patch) {
  entry = history.state?.entry ?? uuid();
  history.replaceState({ ...history.state, ...patch, entry }, "");
}

// `under`: the place that is seen, also behind a job. `from`: whether one came to the job from there.
function arrived(before) {
  const now = parsed(location.hash);
  noteEntry({});
  // An address that leads nowhere.
  if (now.name !== "job" && location.hash && !location.hash.startsWith(`#/${now.name}`)) history.replaceState(history.state, "", hashOf(now));
  if (now.name !== "job") return { ...now, under: now, from: null };
  // What the browser keeps of an entry says so after a reload, too, and when one comes to it again by Back or Forward.
  const isNew = history.state?.from === undefined;
  const from = isNew ? before && (before.name === "job" ? before.from : hashOf(before)) : history.state.from;
  noteEntry({ from });
  return { ...now, under: parsed(from ?? ""), from };
}

export const place = createStore(arrived(null));
window.addEventListener("hashchange", () => place.set(arrived(place.get())));

// Another one of the same jobs: what is behind stays, and one Back leads to it.
export const turnTo = (job, output) => location.replace(`#/job/${job.job_id}/${output}`);

// A step back: another entry would make Back open again what was just closed.
export function closeJob() {
  if (parsed(location.hash).name !== "job") return;
  const { from, under } = place.get();
  if (from === null) location.replace(hashOf(under));
  else history.back();
}

// What is asked of the place. No entry of its own: Back leaves the place, not the last letter that was typed.
export function setQuery(query) {
  const { name, under } = place.get();
  history.replaceState(history.state, "", hashOf({ name, query }));
  place.set({ query, under: { ...under, query } });
}
