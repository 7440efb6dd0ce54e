// Small things that several places of the page are made of.
import { Icon } from "./icons.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "./html.js";
import { createStore, useStore } from "./store.js";
import { explain, t } from "./text.js";

const notes = createStore({ items: [] });

// Said aloud too, and gone by itself: nothing that has to be answered belongs here.
export function say(text, kind = "info") {
  const note = { text, kind, id: Math.random() };
  notes.set({ items: [...notes.get().items.slice(-2), note] });
  setTimeout(() => notes.set({ items: notes.get().items.filter((one) => one !== note) }), 7000);
}

export function Notes() {
  const { items } = useStore(notes);
  return html`<div class="notes" role="status" aria-live="polite">
    ${items.map((note) => html`<p key=${note.id} class=${`note note-${note.kind}`}>${note.text}</p>`)}
  </div>`;
}

export function Problem({ error, children }) {
  if (!error) return null;
  return html`<div class="problem" role="alert"><p>${explain(error)}</p>${children}</div>`;
}

export function Copy({ text, label, isShort = false, isFirst = false }) {
  const [isDone, setDone] = useState(false);
  const [isFailed, setFailed] = useState(false);
  const copy = async () => {
    setFailed(false);
    try {
      await navigator.clipboard.writeText(text);
      setDone(true);
      setTimeout(() => setDone(false), 2000);
    } catch {
      // A note would be under a dialog.
      if (isShort) say(t("copy.failed"), "bad");
      else setFailed(true);
    }
  };
  return html`<button type="button" class=${isShort ? "bare copy" : "quiet"} data-first=${isFirst || undefined} aria-label=${isShort ? label : undefined} title=${isShort ? label : undefined} onClick=${copy}>
    <${Icon} name=${isDone ? "check" : "copy"} />${!isShort && (isDone ? t("copied") : label)}
    ${isShort && html`<span class="unseen" role="status">${isDone ? t("copied") : ""}</span>`}
  </button>${isFailed && html`<span class="hint" role="alert">${t("copy.failed")}</span>`}`;
}

// The browser's own dialog: it keeps the focus inside, closes by Escape, and gives the focus back.
// With `onHeld` it stays until it is taken off the page: every other way to close it only tells of that.
export function Dialog({ title, describedBy, onClose, onHeld, onKeyDown, children, isWide = false }) {
  const box = useRef(null);
  // Before anything is painted: whoever types on at once types into it.
  useLayoutEffect(() => {
    const before = document.activeElement;
    box.current.showModal();
    // On an empty page the focus would be on the button that closes.
    box.current.querySelector("[data-first]")?.focus();
    // A dialog that is taken off the page, not closed, gives the focus to nobody.
    return () => setTimeout(() => {
      if (document.activeElement !== document.body) return;
      if (before?.isConnected && before !== document.body) before.focus({ preventScroll: true });
      else goToContent({ preventScroll: true });
    });
  }, []);
  const passing = useFocusPassedOn(() => box.current.querySelector(".dialog-top button"));
  const onCancel = onHeld && ((event) => {
    event.preventDefault();
    onHeld();
  });
  // A browser heeds no second Escape that is prevented.
  const onClosed = onHeld ? () => box.current && (box.current.showModal(), onHeld()) : onClose;
  const onClick = (event) => event.target === box.current && (onHeld ? onHeld() : box.current.close());
  return html`<dialog ref=${box} ...${passing} class=${isWide ? "dialog wide" : "dialog"} aria-label=${title} aria-describedby=${describedBy} onCancel=${onCancel} onClose=${onClosed} onClick=${onClick} onKeyDown=${onKeyDown}>
    <div class="dialog-box">
      <div class="dialog-top"><h2>${title}</h2>
        ${!onHeld && html`<button type="button" class="bare" aria-label=${t("close")} onClick=${() => box.current.close()}><${Icon} name="close" /></button>`}
      </div>
      ${children}
    </div>
  </dialog>`;
}

// A button that is taken away while it has the focus leaves it to nobody: `next` says what stands there now.
export function useFocusPassedOn(next) {
  const held = useRef(null);
  useLayoutEffect(() => {
    const before = held.current;
    if (!before || before.isConnected || document.activeElement !== document.body) return;
    held.current = null;
    next()?.focus({ preventScroll: true });
  });
  return {
    onFocusIn(event) { held.current = event.target; },
    // Some browsers tell of it where the button is taken away, too.
    onFocusOut({ target }) { setTimeout(() => target.isConnected && held.current === target && (held.current = null)); },
  };
}

export function goToContent(options) {
  const main = document.getElementById("main");
  main.tabIndex = -1;
  main.focus(options);
}

export function Empty({ title, children }) {
  return html`<div class="empty"><h2>${title}</h2>${children}</div>`;
}

export function Segments({ label, options, value, onChange, name, describedBy }) {
  return html`<div class="segments" role="radiogroup" aria-label=${label} aria-describedby=${describedBy}>
    ${options.map(([key, text, extra]) => html`<label key=${String(key)} class=${key === value ? "on" : ""}>
      <input type="radio" name=${name} checked=${key === value} onChange=${() => onChange(key)} />${extra}<span>${text}</span>
    </label>`)}
  </div>`;
}

// The time that goes by, without anything else of the page being drawn again.
export function Elapsed({ since, until }) {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    if (until) return undefined;
    const timer = setInterval(() => setNow(Date.now()), 500);
    return () => clearInterval(timer);
  }, [until]);
  const passed = Math.max(0, ((until ? Date.parse(until) : now) - Date.parse(since)) / 1000);
  return html`<span class="number">${t("seconds", { n: Math.round(passed) })}</span>`;
}

// As far as the time tells that such a run takes; it never pretends to be done.
export function Progress({ job, expected, label }) {
  const [, setNow] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, []);
  const passed = (Date.now() - Date.parse(job.created_at)) / 1000;
  const part = expected ? Math.min(0.95, passed / expected) : undefined;
  return html`<progress aria-label=${label} value=${part} max="1" />`;
}

// The second press does it: what is deleted does not come back.
export function Sure({ label, onSure }) {
  const [isAsking, setAsking] = useState(false);
  const onClick = () => {
    setAsking(!isAsking);
    if (isAsking) onSure();
  };
  return html`<button type="button" class=${isAsking ? "danger" : ""} onBlur=${() => setAsking(false)} onClick=${onClick}>${isAsking ? t("sure") : label}</button>`;
}

// What fails again so soon is broken, and not over.
const LOADED_ANEW_MS = 10_000;

// Of a film that a bucket serves the player holds a link for a minute: loaded anew, the service gives it another one.
// False: this is another trouble.
export function goOn({ target }) {
  const { currentTime, playbackRate, paused } = target;
  if (!target.duration || Date.now() - (target.loadedAnewAt ?? 0) < LOADED_ANEW_MS) return false;
  target.loadedAnewAt = Date.now();
  target.autoplay = !paused;
  target.load();
  Object.assign(target, { currentTime, playbackRate });
  return true;
}
