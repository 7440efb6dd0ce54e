// A field that takes pictures or sounds: dropped, pasted, chosen, from the gallery, or by a URL.
import { mediaUrl, upload } from "./api.js";
import { givenBy, register } from "./drop.js";
import { factsOf, remember, uploaded } from "./files.js";
import { Icon } from "./icons.js";
import { html, useEffect, useRef, useState } from "./html.js";
import { jobs } from "./jobs.js";
import { useFocusPassedOn } from "./parts.js";
import { Picker } from "./picker.js";
import { keyOf, mine, noteRefusal } from "./session.js";
import { useStore } from "./store.js";
import { bytes, explain, t } from "./text.js";

// As many as the service takes. Whoever sends more is told at once, and not once all of it was sent.
const FILE_BYTES_MAX = 100 * 1024 * 1024;

export function MediaField({ id, schema, value, onChange, described, isList, field, wrong }) {
  const kind = schema["x-media"];
  const items = isList ? value ?? [] : value ? [value] : [];
  const max = isList ? schema.maxItems ?? 10 : 1;
  const [sending, setSending] = useState([]);
  const [refused, setRefused] = useState([]);
  const [isOver, setOver] = useState(false);
  const [picking, setPicking] = useState(false);
  const [asUrl, setAsUrl] = useState(false);
  const input = useRef(null);
  const latest = useRef(items);
  latest.current = items;

  const put = (next) => {
    // Another file may be there before this is drawn.
    latest.current = isList ? next.slice(0, max) : next.slice(-1);
    onChange(isList ? latest.current : latest.current[0]);
  };
  const refuse = (name, error) => setRefused((all) => [...all, { name, error }]);
  const room = () => max - latest.current.length;
  const add = (one) => (isList && room() < 1 ? refuse(t("media.input"), { code: "studio_no_room" }) : put([...latest.current, one]));
  // Of each file by itself: whether there is room for it is no question where it cannot be taken at all.
  const problemOf = (file) => {
    if (file.type && !file.type.startsWith(`${kind}/`)) return { code: `studio_not_${kind}` };
    if (file.size > FILE_BYTES_MAX) return { code: "studio_too_large", problem: { size: bytes(file.size), max: bytes(FILE_BYTES_MAX) } };
    return null;
  };
  const take = async (given) => {
    setRefused([]);
    const files = [...given].filter((file) => {
      const problem = problemOf(file);
      if (problem) refuse(file.name, problem);
      return !problem;
    });
    // Where one is taken, another one replaces it.
    const places = isList ? room() : 1;
    for (const { name } of files.slice(places)) refuse(name, { code: isList ? "studio_no_room" : "studio_one_file" });
    for (const file of files.slice(0, places)) {
      const entry = { name: file.name, progress: 0, stop: new AbortController() };
      const show = () => setSending((all) => all.map((one) => (one === entry ? entry : one)));
      setSending((all) => [...all, entry]);
      const key = keyOf();
      try {
        const kept = await upload(file, { key, signal: entry.stop.signal, onProgress(part) { entry.progress = part; show(); } });
        if (key !== keyOf()) return;
        remember(kept);
        // A film is a file that the service takes, and nothing for a field of pictures.
        if (kept.content_type.startsWith(`${kind}/`)) add(`file:${kept.file_id}`);
        else refuse(file.name, { code: `studio_not_${kind}` });
      } catch (failure) {
        if (failure.code === "file_not_taken") refuse(file.name, { code: `studio_not_${kind}` });
        else if (failure.name !== "AbortError") refuse(file.name, noteRefusal(failure, key));
      }
      setSending((all) => all.filter((one) => one !== entry));
    }
  };
  useEffect(() => register({ kind, take, add, room }), [kind, max]);
  const onDrop = (event) => {
    event.preventDefault();
    setOver(false);
    const { own, files } = givenBy(event.dataTransfer);
    if (own) add(own);
    else if (files.length) take(files);
  };
  const onDragOver = (event) => {
    event.preventDefault();
    setOver(true);
  };
  const isFull = items.length >= max;
  const passing = useFocusPassedOn(() => document.getElementById(id));
  return html`<div class=${isOver ? "media over" : "media"} role="group" aria-labelledby=${`${id}-label`} aria-describedby=${described}
      onDragOver=${onDragOver} onDragLeave=${() => setOver(false)} onDrop=${onDrop}>
    ${(items.length > 0 || sending.length > 0) && html`<ul class="inputs" ...${passing}>
      ${items.map((one, place) => html`<li key=${one + place} class=${wrong.has(`/${field.name}${isList ? `/${place}` : ""}`) ? "wrong" : ""}><${Input} name=${one} kind=${kind} />
        <button type="button" class="bare remove" aria-label=${t("media.remove", { n: place + 1 })} onClick=${() => put(items.filter((_, at) => at !== place))}><${Icon} name="close" /></button></li>`)}
      ${sending.map((entry) => html`<li key=${entry.name} class="sending"><progress value=${entry.progress} max="1" aria-label=${t("media.sending", { name: entry.name })} />
        <button type="button" class="bare remove" aria-label=${t("cancel")} onClick=${() => entry.stop.abort()}><${Icon} name="close" /></button></li>`)}
    </ul>`}
    <p class="drop-text">${isFull && isList ? t("media.full", { n: max }) : t(`media.drop.${kind}`)}</p>
    <div class="row">
      <input ref=${input} type="file" hidden accept=${kind === "image" ? "image/*,.heic,.heif" : `${kind}/*`} multiple=${isList} onChange=${(event) => { take(event.target.files); event.target.value = ""; }} />
      <button type="button" id=${id} disabled=${isFull && isList} onClick=${() => input.current.click()}>${t("media.choose")}</button>
      ${kind === "image" && html`<button type="button" disabled=${isFull && isList} onClick=${() => setPicking(true)}>${t("media.gallery")}</button>`}
      <button type="button" class="quiet" aria-expanded=${asUrl} onClick=${() => setAsUrl(!asUrl)}>${t("media.url")}</button>
    </div>
    ${asUrl && html`<div class="row"><input type="url" placeholder="https://…" aria-label=${t("media.url")}
      onKeyDown=${(event) => { if (event.key === "Enter") { event.preventDefault(); if (event.target.value) add(event.target.value); setAsUrl(false); } }}
      onBlur=${(event) => { if (event.target.value) { add(event.target.value); setAsUrl(false); } }} /></div>`}
    <div role="alert">${refused.map(({ name, error }, place) => html`<p key=${place} class="field-error">${name}: ${explain(error)}</p>`)}</div>
    ${picking && html`<${Picker} onClose=${() => setPicking(false)} onPick=${(one) => { add(one); setPicking(false); }} />`}
  </div>`;
}

function Input({ name, kind }) {
  useStore(jobs);
  useStore(uploaded);
  const isFile = name.startsWith("file:");
  const facts = factsOf(name);
  useEffect(() => {
    // After a reload.
    if (isFile && !facts) mine("GET", `/files/${name.slice(5)}`).then(remember).catch(() => {});
  }, [name]);
  const title = isFile && facts ? `${facts.width ? `${facts.width} × ${facts.height} · ` : ""}${bytes(facts.size_bytes)}` : name;
  const url = mediaUrl(facts?.url);
  if (kind === "image" && url) return html`<img src=${url} alt=${t("media.input")} title=${title} />`;
  return html`<span class="input-name" title=${name}>${title}</span>`;
}
