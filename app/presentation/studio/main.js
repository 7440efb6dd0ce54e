// The page: who is here, which of its places is open, and what is going on.
import { uuid } from "./api.js";
import { Create } from "./create.js";
import { loadCatalogue } from "./draft.js";
import { History } from "./history.js";
import { html, render, useEffect, useLayoutEffect, useRef, useState } from "./html.js";
import { startFollowing } from "./jobs.js";
import { Keys } from "./keys.js";
import { Ledger } from "./ledger.js";
import { Notes, goToContent } from "./parts.js";
import { resumeUnsent } from "./runs.js";
import { Secret } from "./secret.js";
import { session, start } from "./session.js";
import { Shell } from "./shell.js";
import { useStore } from "./store.js";
import { language } from "./text.js";
import { Title } from "./title.js";
import { Viewer } from "./viewer.js";
import { Welcome } from "./welcome.js";

const PLACES = { create: Create, history: History, ledger: Ledger, keys: Keys };

function placeOf() {
  const [, name = "create", id, output] = location.hash.split("/");
  if (name === "job" || Object.hasOwn(PLACES, name)) return { name, id, output: Number(output ?? 0) };
  location.replace("#/create");
  return { name: "create" };
}

// How far down each entry of the tab's history was left.
const depths = new Map();
let entry = null;

function noteEntry() {
  entry = history.state?.entry ?? uuid();
  if (!history.state?.entry) history.replaceState({ entry }, "");
}

// A place opens at its top; whoever goes back finds it as it was left.
function useTop(name, account) {
  useLayoutEffect(() => window.scrollTo(0, depths.get(entry) ?? 0), [name]);
  useLayoutEffect(() => window.scrollTo(0, 0), [account]);
}

function usePlace() {
  const [place, setPlace] = useState(placeOf);
  useEffect(() => {
    const onChange = () => {
      noteEntry();
      setPlace((before) => ({ ...placeOf(), before: before.name === "job" ? before.before : before.name }));
    };
    const onScroll = () => depths.set(entry, window.scrollY);
    noteEntry();
    window.addEventListener("hashchange", onChange);
    window.addEventListener("scroll", onScroll, { passive: true });
    return () => {
      window.removeEventListener("hashchange", onChange);
      window.removeEventListener("scroll", onScroll);
    };
  }, []);
  return place;
}

function Page() {
  const { signedIn, isAsking } = useStore(session);
  useStore(language);
  const place = usePlace();
  const account = signedIn?.key;
  useEffect(() => {
    if (!account) return undefined;
    const stop = startFollowing();
    loadCatalogue();
    resumeUnsent();
    return stop;
  }, [account]);
  const wasSignedIn = useRef(null);
  useEffect(() => {
    if (isAsking) return;
    // What was pressed is gone, and so the focus would be. A page that is only loaded keeps it where it is.
    if (wasSignedIn.current !== null && wasSignedIn.current !== Boolean(account)) goToContent();
    wasSignedIn.current = Boolean(account);
  }, [account, isAsking]);
  const isJob = place.name === "job";
  const name = isJob ? place.before ?? "create" : place.name;
  useTop(name, account);
  useEffect(() => {
    if (!signedIn) document.title = "Tollgate";
  });
  if (isAsking) return html`<div class="page" aria-hidden="true" />`;
  const Place = PLACES[name];
  return html`<${Shell} place=${name} isSignedIn=${Boolean(signedIn)}>
      ${signedIn ? html`<${Place} key=${name} />` : html`<${Welcome} />`}
    <//>
    ${signedIn && isJob && html`<${Viewer} id=${place.id} place=${place.output} onClose=${() => { if (placeOf().name === "job") location.hash = `#/${name}`; }} />`}
    ${signedIn && html`<${Title} place=${name} />`}
    <${Secret} /><${Notes} />`;
}

// What is dropped beside a field must not take the page away.
for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());
start();
const root = document.getElementById("studio");
root.replaceChildren();
render(html`<${Page} />`, root);
