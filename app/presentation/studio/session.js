// Whose page this is. The key is kept for the tab, or in the browser where the user wants that, and shared by the tabs.
import { ApiError, ask, call, problemOf } from "./api.js";
import { createStore } from "./store.js";

const ITEM = "tollgate.session";
const OWN = "tollgate.";
// Which keys pages of this browser made for themselves, by id, which opens nothing.
const MADE = "tollgate.made.";
const KEY_DAYS = 30;
const SCOPES = ["generate", "read"];

export const session = createStore({ signedIn: null, isAsking: true, notice: null });
const channel = "BroadcastChannel" in window ? new BroadcastChannel("tollgate") : null;
const listeners = new Set();
const forgetters = new Set();

export function listen(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

// What the page has in memory of an account goes with it.
export function onLeave(forgetter) {
  forgetters.add(forgetter);
}

export const keyOf = () => session.get().signedIn?.key ?? null;
// Tells accounts apart: what the tab of one says is nothing to the tab of another.
export const accountMark = () => keyOf()?.slice(0, 12) ?? null;

export function tell(message) {
  channel?.postMessage({ ...message, of: accountMark() });
}

export const mayGenerate = () => session.get().signedIn?.scopes.includes("generate") ?? false;

// Where the page keeps what outlives a reload: with the key, so that both go together.
export function storage() {
  return session.get().signedIn?.isRemembered ? localStorage : sessionStorage;
}

const keptIn = (place) => JSON.parse(place.getItem(ITEM));
const stored = () => keptIn(sessionStorage) ?? keptIn(localStorage);

// Held by each tab that uses the key, so that no other one takes it for left behind.
let letGo = null;
function hold({ id }) {
  if (id) navigator.locks?.request(MADE + id, { mode: "shared" }, () => new Promise((resolve) => { letGo = resolve; }));
}

function enter(signedIn) {
  hold(signedIn);
  const place = signedIn.isRemembered ? localStorage : sessionStorage;
  place.setItem(ITEM, JSON.stringify(signedIn));
  session.set({ signedIn, isAsking: false, notice: null });
}

function forget() {
  const [key, mark] = [keyOf(), accountMark()];
  for (const place of [sessionStorage, localStorage]) {
    // Another account may be remembered here, which this tab knows nothing of.
    const isOfAnother = (keptIn(place)?.key ?? key) !== key;
    const own = Object.keys(place).filter((name) => name.startsWith(OWN));
    for (const name of own.filter((one) => !one.startsWith(MADE))) if (!isOfAnother || JSON.parse(place.getItem(name)).of === mark) place.removeItem(name);
  }
  letGo?.();
  location.replace("#/create");
  for (const forgetter of forgetters) forgetter();
}

export function start() {
  if (channel) channel.onmessage = ({ data }) => hear(data);
  const kept = stored();
  if (kept) return enter(kept);
  tell({ type: "who" });
  // The other tabs answer within moments, or there are none.
  setTimeout(() => session.get().isAsking && session.set({ isAsking: false }), 120);
}

function hear(message) {
  const { signedIn } = session.get();
  const isOfAll = message.type === "who" || message.type === "session";
  if (!isOfAll && message.of !== accountMark()) return;
  if (message.type === "who") {
    if (signedIn) tell({ type: "session", signedIn });
  } else if (message.type === "session") {
    if (!signedIn) enter(message.signedIn);
  } else if (message.type === "left") {
    if (signedIn) leave(message.notice);
  }
  for (const listener of listeners) listener(message);
}

function leave(notice) {
  forget();
  session.set({ signedIn: null, isAsking: false, notice });
}

export async function signIn(key, isRemembered) {
  const found = await call("GET", "/keys/current", { key });
  if (!found.scopes.includes("read")) throw new ApiError({ code: "studio_needs_read" }, 403);
  const isFull = found.scopes.length === 3 && !found.budget && !found.expires_at;
  if (!isFull) {
    enter({ key, isRemembered, isOwn: false, scopes: found.scopes, name: found.name, expiresAt: found.expires_at });
  } else {
    const expiresAt = new Date(Date.now() + KEY_DAYS * 86_400_000).toISOString();
    await endLeftBehind(key);
    const made = await makeOwn(key, expiresAt);
    // From here on nothing on this page has the full key.
    enter({ id: made.id, key: made.api_key, isRemembered, isOwn: true, scopes: SCOPES, name: made.name, expiresAt });
    noteMade(made.id, expiresAt);
  }
  tell({ type: "session", signedIn: session.get().signedIn });
}

async function makeOwn(key, expiresAt) {
  const body = { name: `studio, ${browserName()}`, scopes: SCOPES, expires_at: expiresAt };
  try {
    return await call("POST", "/keys", { key, body });
  } catch (error) {
    throw error.code === "too_many_keys" ? new ApiError({ code: "studio_too_many_keys" }, error.status) : error;
  }
}

function noteMade(id, until) {
  try {
    localStorage.setItem(MADE + id, JSON.stringify({ until }));
  } catch {
    // The browser is full: the key ends in its own time.
  }
}

// A page that was closed and not signed out of has left its key to live on. Where the browser has no locks, nobody can
// tell that page from one that is only slow to answer.
async function endLeftBehind(key) {
  if (!navigator.locks) return;
  const inUse = new Set((await navigator.locks.query()).held.map(({ name }) => name));
  for (const name of Object.keys(localStorage).filter((one) => one.startsWith(MADE) && !inUse.has(one))) {
    try {
      const { until } = JSON.parse(localStorage.getItem(name));
      if (Date.parse(until) > Date.now()) await call("DELETE", `/keys/${name.slice(MADE.length)}`, { key });
      localStorage.removeItem(name);
    } catch {
      // Of another account, or not to be had right now: it is tried again, or ends in its own time.
    }
  }
}

// The full key of a new account.
export async function newcomersKey() {
  const answer = await ask("POST", "/studio/newcomers");
  if (!answer.ok) throw await problemOf(answer);
  return (await answer.json()).api_key;
}

export const canWelcome = document.querySelector("meta[name=tollgate-newcomers]")?.content === "yes";

export async function signOut() {
  const { signedIn } = session.get();
  // First: whoever closes the page now has left, and no tab takes the end of the key for somebody else's doing.
  tell({ type: "left", notice: "signed_out_elsewhere" });
  leave(null);
  let notice = signedIn?.isOwn ? "signed_out" : "signed_out_given";
  if (signedIn?.isOwn) {
    try {
      await call("DELETE", "/keys/current", { key: signedIn.key, keepalive: true });
      localStorage.removeItem(MADE + signedIn.id);
    } catch (error) {
      if (error.status !== 401) notice = "signed_out_key_lives";
    }
  }
  if (!session.get().signedIn) session.set({ notice });
}

// What is answered 401 has ended, wherever that was done. An answer that comes late is not about who is here by then.
export function noteRefusal(error, key) {
  if (error.status === 401 && key !== null && key === keyOf()) {
    localStorage.removeItem(MADE + session.get().signedIn.id);
    tell({ type: "left", notice: "key_ended" });
    leave("key_ended");
  }
  return error;
}

export async function mine(method, path, options = {}) {
  const key = keyOf();
  let found;
  try {
    found = await call(method, path, { ...options, key });
  } catch (error) {
    throw noteRefusal(error, key);
  }
  // Of somebody who has left meanwhile.
  if (key !== keyOf()) throw new DOMException("left", "AbortError");
  return found;
}

function browserName() {
  const agent = navigator.userAgent;
  const names = [["Edg/", "Edge"], ["OPR/", "Opera"], ["Firefox/", "Firefox"], ["Chrome/", "Chrome"], ["Safari/", "Safari"]];
  const systems = [["Android", "Android"], ["iPhone", "iPhone"], ["iPad", "iPad"], ["Windows", "Windows"], ["Mac", "Mac"], ["Linux", "Linux"]];
  const find = (known) => known.find(([mark]) => agent.includes(mark))?.[1];
  return [find(names), find(systems)].filter(Boolean).join(" on ") || "a browser";
}
