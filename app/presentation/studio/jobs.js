// The jobs and the balance as far as this page knows them, and what keeps them true.
import { say } from "./parts.js";
import { mine, keyOf, listen, onLeave, tell } from "./session.js";
import { createStore } from "./store.js";
import { followEvents } from "./stream.js";
import { t, tokens } from "./text.js";

export const FINAL = new Set(["COMPLETED", "FAILED", "CANCELED"]);
const PAGE = 50;
// How far the list of all jobs was read, and that of each filter, by what it adds to the question.
const FRESH = { cursor: null, hasMore: true, isLoading: false };

const EMPTY = {
  byId: new Map(), order: [], balance: null, arrivals: [], link: "connecting",
  isLoaded: false, walks: new Map(), revision: 0,
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

async function refresh() {
  if (!keyOf()) return;
  try {
    const [balance, page] = await Promise.all([mine("GET", "/balance"), mine("GET", `/generations?limit=${PAGE}&include=input`)]);
    jobs.set({ balance: balance.balance_tokens });
    put(page.items);
    if (!jobs.get().walks.has("")) walkOn("", { cursor: page.next_cursor, hasMore: page.next_cursor !== null });
    jobs.set({ isLoaded: true });
  } catch {
    // The next round asks again.
  }
}

export const walkOf = (filter) => jobs.get().walks.get(filter) ?? FRESH;

function walkOn(filter, patch) {
  jobs.set({ walks: new Map(jobs.get().walks).set(filter, { ...walkOf(filter), ...patch }) });
}

// A page may have nothing that fits, and lead on all the same.
export async function loadMore(filter) {
  const { cursor, hasMore, isLoading } = walkOf(filter);
  if (!hasMore || isLoading || !jobs.get().isLoaded) return;
  walkOn(filter, { isLoading: true });
  try {
    const page = await mine("GET", `/generations?limit=100&include=input${filter}${cursor ? `&cursor=${cursor}` : ""}`);
    put(page.items);
    walkOn(filter, { cursor: page.next_cursor, hasMore: page.next_cursor !== null, isLoading: false });
  } catch {
    setTimeout(() => walkOn(filter, { isLoading: false }), 2000);
  }
}

export async function loadJob(id) {
  const job = await mine("GET", `/generations/${id}?include=input`);
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
  // What is told late of a job may be the first to say what it was asked for.
  const whole = known.input === undefined ? { ...known, input: job.input } : known;
  if (FINAL.has(known.status) && !FINAL.has(job.status)) return whole;
  if ((job.updated_at ?? "") < (known.updated_at ?? "")) {
    // An event is dated a little later than the row that it tells of. Of the same state, a look has the newer outlook.
    if (job.isOfEvent || job.status !== known.status) return whole;
    return { ...whole, waiting_for: job.waiting_for, queue_position: job.queue_position, eta_seconds: job.eta_seconds };
  }
  // An event has no outlook. The one that is known stays, but for what belongs to the state that is over.
  const isSame = job.status === known.status;
  const outlook = job.isOfEvent && !FINAL.has(job.status)
    ? { waiting_for: isSame ? known.waiting_for : null, queue_position: isSame ? known.queue_position : null, eta_seconds: known.eta_seconds } : {};
  // Of whole pictures in a row the service tells nothing, but this page may have sent them.
  return { ...known, ...job, ...outlook, input: job.input ?? known.input ?? job.input };
}

function applyEvent(event) {
  if (event.type.startsWith("generation.") || event.type === "output.stored") {
    put([{ ...event.data, isOfEvent: true }]);
    // Of a job that somebody else has started no event says what was asked for.
    if (jobs.get().byId.get(event.data.job_id).input === undefined) askForInput(event.data.job_id);
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

const untold = new Set();
let untoldTimer = null;
onLeave(() => untold.clear());
function askForInput(id) {
  untold.add(id);
  clearTimeout(untoldTimer);
  untoldTimer = setTimeout(() => {
    const ids = [...untold];
    untold.clear();
    // One by one as long as they are few.
    if (ids.length > 10) refresh();
    else for (const one of ids) loadJob(one).catch(() => {});
  }, 500);
}
