// A form of a few fields: a redraw changes nothing of what is filled in, and what is wrong is said at its field.
import { html, useEffect, useRef, useState } from "./html.js";
import { Problem } from "./parts.js";
import { explainField } from "./text.js";

// `wrongIn` tells what is wrong with the values, by field; `places` by which name the service knows a field.
// `send` answers whether it was done.
export function useSmallForm({ blank, wrongIn, places, send }) {
  const [values, setValues] = useState(blank);
  const [wrong, setWrong] = useState({});
  const [failure, setFailure] = useState(null);
  const [refusals, setRefusals] = useState(0);
  const form = useRef(null);
  const isSending = useRef(false);
  useEffect(() => {
    if (refusals) (form.current.querySelector("[aria-invalid=true]") ?? form.current.querySelector(".said")).focus();
  }, [refusals]);
  const refuse = (found, error = null) => {
    setWrong(found);
    setFailure(error);
    setRefusals((count) => count + 1);
  };
  const set = (name, value) => {
    setValues((before) => ({ ...before, [name]: value }));
    setWrong(({ [name]: _, ...others }) => others);
  };
  const onSubmit = async (event) => {
    event.preventDefault();
    if (isSending.current) return;
    const found = wrongIn(values);
    if (Object.keys(found).length) return refuse(found);
    isSending.current = true;
    try {
      await send(values);
      setValues(blank);
      setWrong({});
      setFailure(null);
    } catch (error) {
      const named = error.fields?.map((one) => [places[one.pointer.split("/")[1]], explainField(one)]) ?? [];
      const known = Object.fromEntries(named.filter(([name]) => name));
      refuse(known, Object.keys(known).length ? null : error);
    }
    isSending.current = false;
  };
  return { values, wrong, failure, set, form, onSubmit };
}

export function SmallForm({ of, children, submit }) {
  return html`<form class="small-form" ref=${of.form} onSubmit=${of.onSubmit} novalidate>${children}
    <div class="said" tabindex="-1"><${Problem} error=${of.failure} /></div>
    <button class="primary">${submit}</button></form>`;
}

export function TextField({ of, id, name, label, children, ...input }) {
  const text = of.wrong[name];
  return html`<div class="field"><label for=${id}>${label}</label>
    <div class="line"><input id=${id} value=${of.values[name]} onInput=${(event) => of.set(name, event.target.value)} ...${saidOf(id, text)} ...${input} />${children}</div>
    <${Wrong} id=${id} text=${text} /></div>`;
}

export const saidOf = (id, text) => ({ "aria-invalid": text ? "true" : undefined, "aria-describedby": text ? `${id}-wrong` : undefined });

export function Wrong({ id, text }) {
  return text ? html`<p class="field-error" id=${`${id}-wrong`}>${text}</p>` : null;
}
