// Before anybody is signed in: what this is, and the ways in.
import { address } from "./api.js";
import { Icon } from "./icons.js";
import { html, useState } from "./html.js";
import { Problem } from "./parts.js";
import { showSecret } from "./secret.js";
import { canWelcome, newcomersKey, session, signIn } from "./session.js";
import { useStore } from "./store.js";
import { t } from "./text.js";

export function Welcome() {
  const { notice } = useStore(session);
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(null);
  const [isRemembered, setRemembered] = useState(false);
  const enter = async (name, work) => {
    setBusy(name);
    setError(null);
    try {
      await work();
    } catch (failure) {
      setError(failure);
      setBusy(null);
    }
  };
  const enterAsNewcomer = () => enter("new", async () => {
    const full = await newcomersKey();
    // Shown first: whatever becomes of the sign-in, nobody else has it.
    showSecret({ title: t("secret.full"), secret: full, why: t("secret.full.why") });
    await signIn(full, false);
  });
  const onSubmit = (event) => {
    event.preventDefault();
    const key = event.target.elements.key.value.trim();
    if (key) enter("key", () => signIn(key, isRemembered));
  };
  return html`<main class="welcome" id="main">
    <section class="pitch">
      <h1>${t("welcome.title")}</h1>
      <p class="lead">${t("welcome.lead")}</p>
      <ul class="points">${["price", "wait", "refund"].map((point) => html`<li key=${point}><strong>${t(`welcome.${point}.title`)}</strong><span>${t(`welcome.${point}`)}</span></li>`)}</ul>
    </section>
    <section class="card entry" aria-labelledby="entry-title">
      <h2 id="entry-title">${t("welcome.enter")}</h2>
      ${notice && html`<p class="notice" role="status">${t(`notice.${notice}`)}</p>`}
      ${canWelcome && html`<button type="button" class="primary big" disabled=${busy !== null} onClick=${enterAsNewcomer}>
          ${busy === "new" ? t("welcome.making") : t("welcome.newcomer")}</button>
        <p class="hint">${t("welcome.newcomer.hint")}</p>
        <p class="or"><span>${t("or")}</span></p>`}
      <form onSubmit=${onSubmit}>
        <label for="key">${t("welcome.key")}</label>
        <input id="key" name="key" type="password" autocomplete="off" spellcheck="false" placeholder="tgk_…" required aria-describedby="key-hint" />
        <p class="hint" id="key-hint">${t("welcome.key.hint")}</p>
        <label class="check"><input type="checkbox" checked=${isRemembered} onChange=${(event) => setRemembered(event.target.checked)} />${t("welcome.remember")}</label>
        <button class=${canWelcome ? "big" : "primary big"} disabled=${busy !== null}>${busy === "key" ? t("welcome.entering") : t("welcome.submit")}</button>
      </form>
      <${Problem} error=${error} />
      <p class="hint"><a href=${address("docs").href}>${t("docs.link")}</a></p>
    </section>
  </main>`;
}
