// Server-sent events, read by fetch: EventSource can send no header, and a key in a URL would end up in logs.
import { ask, problemOf } from "./api.js";
import { accountMark, keyOf, noteRefusal } from "./session.js";

// A comment comes every 15 seconds; after so long without one the connection is dead, whatever the browser thinks.
const SILENCE_MS = 40_000;

// One stream a browser: the tab that holds the lock reads it and tells the others.
export function followEvents({ onEvent, onOpen, onLink }) {
  const ended = new AbortController();
  const work = () => keepReading({ onEvent, onOpen, onLink, ended: ended.signal });
  if (navigator.locks) {
    onLink("shared");
    navigator.locks.request(`tollgate-stream-${accountMark()}`, { signal: ended.signal }, work).catch(() => {});
  } else work();
  return () => ended.abort();
}

async function keepReading({ onEvent, onOpen, onLink, ended }) {
  const key = keyOf();
  let lastId = null;
  let failures = 0;
  while (!ended.aborted) {
    const attempt = new AbortController();
    const stopAttempt = () => attempt.abort();
    ended.addEventListener("abort", stopAttempt);
    window.addEventListener("offline", stopAttempt);
    try {
      const headers = lastId === null ? {} : { "Last-Event-ID": lastId };
      const answer = await ask("GET", "/events/stream", { key, headers, signal: attempt.signal });
      if (!answer.ok) {
        // A place in the log that is too old: begin anew, and read what there is.
        if (answer.status === 410) lastId = null;
        throw noteRefusal(await problemOf(answer), key);
      }
      failures = 0;
      onLink("live");
      onOpen();
      for await (const message of messages(answer.body, attempt)) {
        lastId = message.id ?? lastId;
        if (message.data) onEvent(JSON.parse(message.data));
      }
    } catch {
      // Said by onLink.
    }
    ended.removeEventListener("abort", stopAttempt);
    window.removeEventListener("offline", stopAttempt);
    if (ended.aborted || key !== keyOf()) return;
    failures += 1;
    if (failures > 1 || !navigator.onLine) onLink("lost");
    await pause(Math.min(8000, 300 * 2 ** failures) * (0.75 + Math.random() / 2), ended);
  }
}

// Until then, or until the network is back.
export function pause(ms, ended) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      window.removeEventListener("online", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    window.addEventListener("online", done);
    ended?.addEventListener("abort", done, { once: true });
  });
}

async function* messages(body, attempt) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  let message = {};
  for (;;) {
    const timer = setTimeout(() => attempt.abort(), SILENCE_MS);
    const { done, value } = await reader.read();
    clearTimeout(timer);
    if (done) return;
    text += value;
    const lines = text.split(/\r\n|\n|\r/);
    text = lines.pop();
    for (const line of lines) {
      if (line === "") {
        yield message;
        message = {};
      } else if (!line.startsWith(":")) {
        const place = line.indexOf(":");
        const name = place < 0 ? line : line.slice(0, place);
        const part = place < 0 ? "" : line.slice(place + 1).replace(/^ /, "");
        message[name] = name === "data" && message.data ? `${message.data}\n${part}` : part;
      }
    }
  }
}
