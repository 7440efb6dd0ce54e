// A field that takes pictures or sounds: dropped, pasted, chosen, from the gallery, or by a URL.
import { mediaUrl, upload } from "./api.js";
import { Icon } from "./icons.js";
import { html, useEffect, useRef, useState } from "./html.js";
import { jobs } from "./jobs.js";
import { Dialog, Empty } from "./parts.js";
import { keyOf, mine, noteRefusal, onLeave } from "./session.js";
import { useStore } from "./store.js";
import { bytes, explain, t } from "./text.js";

// What was uploaded from this page is shown without asking for it again.
const uploaded = new Map();
onLeave(() => uploaded.clear());

export function MediaField({ id, schema, value, onChange, described, isList }) {
  const kind = schema["x-media"];
  const items = isList ? value ?? [] : value ? [value] : [];
  const max = isList ? schema.maxItems ?? 10 : 1;
  const [sending, setSending] = useState([]);
  const [error, setError] = useState(null);
  const [isOver, setOver] = useState(false);
  const [picking, setPicking] = useState(false);
  const [asUrl, setAsUrl] = useState(false);
  const input = useRef(null);
  const latest = useRef(items);
  latest.current = items;

  const put = (next) => onChange(isList ? next.slice(0, max) : next.at(-1));
  const add = (one) => put([...latest.current, one]);
  const take = async (files) => {
    setError(null);
    const room = isList ? max - latest.current.length : 1;
    for (const file of [...files].slice(0, Math.max(1, room))) {
      const entry = { name: file.name, progress: 0, stop: new AbortController() };
      const show = () => setSending((all) => all.map((one) => (one === entry ? entry : one)));
      setSending((all) => [...all, entry]);
      const key = keyOf();
      try {
        const kept = await upload(file, { key, signal: entry.stop.signal, onProgress(part) { entry.progress = part; show(); } });
        if (key !== keyOf()) return;
        uploaded.set(kept.file_id, kept);
        add(`file:${kept.file_id}`);
      } catch (failure) {
        if (failure.name !== "AbortError") setError(noteRefusal(failure, key));
      }
      setSending((all) => all.filter((one) => one !== entry));
    }
  };
  useEffect(() => {
    // Of pasted files each goes to the first field that has room for it.
    const onPaste = (event) => {
      const files = [...(event.clipboardData?.files ?? [])].filter((file) => file.type.startsWith(`${kind}/`));
      if (!files.length || event.defaultPrevented || latest.current.length >= max) return;
      event.preventDefault();
      take(files);
    };
    document.addEventListener("paste", onPaste);
    return () => document.removeEventListener("paste", onPaste);
  }, [kind, max]);
  const onDrop = (event) => {
    event.preventDefault();
    setOver(false);
    const own = event.dataTransfer.getData("application/x-tollgate-input");
    if (own) add(own);
    else if (event.dataTransfer.files.length) take(event.dataTransfer.files);
  };
  const onDragOver = (event) => {
    event.preventDefault();
    setOver(true);
  };
  const isFull = items.length >= max;
  return html`<div class=${isOver ? "media over" : "media"} role="group" aria-labelledby=${`${id}-label`} aria-describedby=${described}
      onDragOver=${onDragOver} onDragLeave=${() => setOver(false)} onDrop=${onDrop}>
    ${(items.length > 0 || sending.length > 0) && html`<ul class="inputs">
      ${items.map((one, place) => html`<li key=${one + place}><${Input} name=${one} kind=${kind} />
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
    ${error && html`<p class="field-error" role="alert">${explain(error)}</p>`}
    ${picking && html`<${Gallery} onClose=${() => setPicking(false)} onPick=${(one) => { add(one); setPicking(false); }} />`}
  </div>`;
}

export function pictureOf(name, byId) {
  if (name.startsWith("file:")) return mediaUrl(uploaded.get(name.slice(5))?.url);
  const output = /^output:([^/]+)\/(\d+)$/.exec(name);
  if (output) return mediaUrl(byId.get(output[1])?.outputs?.[Number(output[2])]?.url);
  return null;
}

function Input({ name, kind }) {
  const { byId } = useStore(jobs);
  const [, setKnown] = useState(0);
  const url = pictureOf(name, byId);
  useEffect(() => {
    if (!name.startsWith("file:") || uploaded.has(name.slice(5))) return;
    // After a reload.
    mine("GET", `/files/${name.slice(5)}`).then((file) => { uploaded.set(file.file_id, file); setKnown(1); }).catch(() => {});
  }, [name]);
  const file = name.startsWith("file:") ? uploaded.get(name.slice(5)) : null;
  const title = file ? `${file.width ? `${file.width} × ${file.height} · ` : ""}${bytes(file.size_bytes)}` : name;
  if (kind === "image" && url) return html`<img src=${url} alt=${t("media.input")} title=${title} />`;
  return html`<span class="input-name" title=${name}>${title}</span>`;
}

function Gallery({ onClose, onPick }) {
  const { byId, order } = useStore(jobs);
  const found = order.map((id) => byId.get(id)).flatMap((job) =>
    (job.outputs ?? []).map((output, place) => ({ job, output, place }))
      .filter(({ output }) => output.url && !output.is_blanked && (output.content_type ?? "").startsWith("image/")));
  return html`<${Dialog} title=${t("media.gallery.title")} onClose=${onClose} isWide=${true}>
    ${found.length === 0 ? html`<${Empty} title=${t("media.gallery.empty")}><p>${t("media.gallery.empty.hint")}</p><//>`
      : html`<ul class="picker">${found.slice(0, 60).map(({ job, output, place }) => html`<li key=${`${job.job_id}/${place}`}>
        <button type="button" onClick=${() => onPick(`output:${job.job_id}/${place}`)}><img loading="lazy" src=${mediaUrl(output.url)} alt=${t("media.pick", { when: job.created_at })} /></button></li>`)}</ul>`}
  <//>`;
}
