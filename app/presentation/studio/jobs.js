// The jobs and the balance as far as this page knows them, and what keeps them true.
import { read, write } from "./kept.js";
import { say } from "./parts.js";
import { mine, keyOf, listen, onLeave, tell } from "./session.js";
import { createStore } from "./store.js";
import { followEvents } from "./stream.js";
import { t, tokens } from "./text.js";

export const FINAL = new Set(["COMPLETED", "FAILED", "CANCELED"]);
const REQUESTS = "tollgate.requests";
const REQUESTS_MAX = 200;
const PAGE = 50;

const EMPTY = {
  byId: new Map(), order: [], balance: null, arrivals: [], link: "connecting",
  isLoaded: false, cursor: null, hasMore: false, isLoadingMore: false, revision: 0,
};
export const jobs = createStore(EMPTY);

let stop = null;

function reset() {
  jobs.set({ ...EMPTY, byId: new Map(), order: [] });
}
onLeave(reset);

export function startFollowing() {
  stop?.();
  reset();
  const unlisten = listen(hear);
  const unfollow = followEvents({
    onEvent(event) {
      applyEvent(event);
      tell({ type: "event", event });
    },
    // Whatever happened before the stream stood is read once.
    onOpen() {
      refresh();
      tell({ type: "opened" });
    },
    onLink(link) {
      jobs.set({ link });
      tell({ type: "link", link });
    },
  });
  const timer = setInterval(poll, 2500);
  stop = () => {
    unlisten();
    unfollow();
    clearInterval(timer);
    stop = null;
  };
  refresh();
  return () => stop?.();
}

function hear(message) {
  if (message.type === "event") applyEvent(message.event);
  if (message.type === "accepted" || message.type === "opened") refresh();
  // The tab that reads the stream speaks for all: another one only waits for its turn.
  if (message.type === "link" && message.link !== "shared") jobs.set({ link: message.link });
}

export async function refresh() {
  if (!keyOf()) return;
  const isFirst = !jobs.get().isLoaded;
  try {
    const [balance, page] = await Promise.all([mine("GET", "/balance"), mine("GET", `/generations?limit=${PAGE}`)]);
    jobs.set({ balance: balance.balance_tokens });
    put(page.items);
    const more = isFirst ? { cursor: page.next_cursor, hasMore: page.next_cursor !== null } : {};
    jobs.set({ isLoaded: true, ...more });
  } catch {
    // The next round asks again.
  }
}

export async function loadMore() {
  const { cursor, hasMore, isLoadingMore } = jobs.get();
  if (!hasMore || isLoadingMore || !cursor) return;
  jobs.set({ isLoadingMore: true });
  try {
    const page = await mine("GET", `/generations?limit=100&cursor=${cursor}`);
    put(page.items);
    jobs.set({ cursor: page.next_cursor, hasMore: page.next_cursor !== null, isLoadingMore: false });
  } catch {
    setTimeout(() => jobs.set({ isLoadingMore: false }), 2000);
  }
}

export async function loadJob(id) {
  const job = await mine("GET", `/generations/${id}`);
  put([job]);
  return job;
}

// Events say what happened. Why a job waits, and how long it may take, changes without one.
let isPolling = false;
async function poll() {
  const { order, byId } = jobs.get();
  const unfinished = order.filter((id) => !FINAL.has(byId.get(id).status)).slice(0, 20);
  if (!unfinished.length || isPolling || document.hidden || !keyOf()) return;
  isPolling = true;
  try {
    const isRecent = unfinished.every((id) => order.indexOf(id) < PAGE);
    if (isRecent) put((await mine("GET", `/generations?limit=${PAGE}`)).items);
    else put(await Promise.all(unfinished.map((id) => mine("GET", `/generations/${id}`))));
  } catch {
    // As above.
  }
  isPolling = false;
}

export function put(found) {
  const { byId } = jobs.get();
  let isNew = false;
  for (const job of found) {
    const known = byId.get(job.job_id);
    if (!known) isNew = true;
    byId.set(job.job_id, known ? newer(known, job) : job);
    if (known && !FINAL.has(known.status) && FINAL.has(job.status)) noteEnd(job);
  }
  // Ids are in the order of time.
  const order = isNew ? [...byId.keys()].sort().reverse() : jobs.get().order;
  jobs.set({ byId, order, revision: jobs.get().revision + 1 });
}

function newer(known, job) {
  if (FINAL.has(known.status) && !FINAL.has(job.status)) return known;
  if ((job.updated_at ?? "") < (known.updated_at ?? "")) return known;
  // An event has no outlook: the one that is known stays.
  const outlook = job.isOfEvent && !FINAL.has(job.status)
    ? { waiting_for: known.waiting_for, queue_position: known.queue_position, eta_seconds: known.eta_seconds } : {};
  return { ...known, ...job, ...outlook };
}

function applyEvent(event) {
  if (event.type.startsWith("generation.") || event.type === "output.stored") {
    put([{ ...event.data, isOfEvent: true }]);
  }
  if (event.type === "balance.credited") noteArrival(event.id, event.data.entry.amount, "balance.credited");
  if (event.type === "balance.low") say(t("balance.low", { tokens: tokens(event.data.balance_tokens) }), "bad");
  if (event.data?.balance_tokens !== undefined) jobs.set({ balance: event.data.balance_tokens });
  else if (event.type.startsWith("generation.")) askForBalance();
}

function noteEnd(job) {
  const refunded = job.billing?.refunded_tokens ?? 0;
  if (refunded) noteArrival(job.job_id, refunded, "balance.back");
}

// Tokens are seen to arrive, beside the balance.
function noteArrival(id, amount, sentence) {
  const arrival = { id, amount, sentence };
  jobs.set({ arrivals: [...jobs.get().arrivals, arrival] });
  setTimeout(() => jobs.set({ arrivals: jobs.get().arrivals.filter((one) => one !== arrival) }), 6000);
}

let balanceTimer = null;
function askForBalance() {
  clearTimeout(balanceTimer);
  balanceTimer = setTimeout(async () => {
    try {
      jobs.set({ balance: (await mine("GET", "/balance")).balance_tokens });
    } catch {
      // The next event asks again.
    }
  }, 200);
}

// The service keeps no prompt for reading: what this browser sent stays in this browser, until the sign-out.
export function requestOf(id) {
  return readRequests()[id] ?? null;
}

export function rememberRequest(id, request) {
  const all = readRequests();
  all[id] = request;
  const ids = Object.keys(all).sort();
  for (const old of ids.slice(0, Math.max(0, ids.length - REQUESTS_MAX))) delete all[old];
  write(REQUESTS, all);
}

function readRequests() {
  return read(REQUESTS) ?? {};
}
