// The page: who is here, which of its places is open, and what is going on.
import { Create } from "./create.js";
import { loadCatalogue } from "./draft.js";
import { History } from "./history.js";
import { html, render, useEffect, useLayoutEffect, useRef } from "./html.js";
import { startFollowing } from "./jobs.js";
import { Keys } from "./keys.js";
import { Ledger } from "./ledger.js";
import { Notes, goToContent } from "./parts.js";
import { closeJob, depth, place as where } from "./place.js";
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

// A place opens at its top; whoever goes back finds it as it was left.
function useTop(name, account) {
  useLayoutEffect(() => window.scrollTo(0, depth()), [name]);
  useLayoutEffect(() => window.scrollTo(0, 0), [account]);
}

function Page() {
  const { signedIn, isAsking } = useStore(session);
  useStore(language);
  const { name: place, id, output, under: { name } } = useStore(where);
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
  useTop(name, account);
  useEffect(() => {
    if (!signedIn) document.title = "Tollgate";
  });
  if (isAsking) return html`<div class="page" aria-hidden="true" />`;
  const Place = PLACES[name];
  return html`<${Shell} place=${name} isSignedIn=${Boolean(signedIn)}>
      ${signedIn ? html`<${Place} key=${name} />` : html`<${Welcome} />`}
    <//>
    ${signedIn && place === "job" && html`<${Viewer} id=${id} place=${output} onClose=${closeJob} />`}
    ${signedIn && html`<${Title} place=${name} />`}
    <${Secret} /><${Notes} />`;
}

// What is dropped beside a field must not take the page away.
for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());
start();
const root = document.getElementById("studio");
root.replaceChildren();
render(html`<${Page} />`, root);
