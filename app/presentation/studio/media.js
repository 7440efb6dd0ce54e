// A field that takes pictures or sounds: dropped, pasted, chosen, from the gallery, or by a URL.
import { mediaUrl, upload } from "./api.js";
import { Icon } from "./icons.js";
import { html, useEffect, useRef, useState } from "./html.js";
import { jobs } from "./jobs.js";
import { Dialog, Empty, useFocusPassedOn } from "./parts.js";
import { keyOf, mine, noteRefusal, onLeave } from "./session.js";
import { useStore } from "./store.js";
import { bytes, explain, t } from "./text.js";

// What was uploaded from this page is shown without asking for it again.
const uploaded = new Map();
onLeave(() => uploaded.clear());
// As many as the service takes. Whoever sends more is told at once, and not once all of it was sent.
const FILE_BYTES_MAX = 100 * 1024 * 1024;
const OWN_OUTPUT = "application/x-tollgate-input";
// The fields that are on the page, in their order.
const fields = new Set();

// Each file goes to the first field for its kind that has room. Returns those that no field has taken.
function offer(files) {
  let left = [...files];
  for (const field of fields) {
    const taken = left.filter((file) => file.type.startsWith(`${field.kind}/`)).slice(0, field.room());
    if (taken.length) field.take(taken);
    left = left.filter((file) => !taken.includes(file));
  }
  return left;
}

document.addEventListener("paste", (event) => {
  const files = event.clipboardData?.files ?? [];
  if (!event.defaultPrevented && offer(files).length < files.length) event.preventDefault();
});

// Beside a field, but on the form. What fits nowhere the first field refuses, and says why.
document.addEventListener("drop", (event) => {
  const [first] = fields;
  if (event.defaultPrevented || !first || !event.target.closest?.(".form")) return;
  event.preventDefault();
  const own = event.dataTransfer.getData(OWN_OUTPUT);
  if (own) ([...fields].find((field) => field.kind === "image" && field.room() > 0) ?? first).add(own);
  const left = offer(event.dataTransfer.files);
  if (left.length) first.take(left);
});

export function MediaField({ id, schema, value, onChange, described, isList }) {
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
  const add = (one) => put([...latest.current, one]);
  const refuse = (name, error) => setRefused((all) => [...all, { name, error }]);
  const take = async (given) => {
    setRefused([]);
    // Where one is taken, another one replaces it.
    const room = isList ? max - latest.current.length : 1;
    const files = [...given];
    for (const { name } of files.slice(room)) refuse(name, { code: isList ? "studio_no_room" : "studio_one_file" });
    for (const file of files.slice(0, room)) {
      if (file.size > FILE_BYTES_MAX) {
        refuse(file.name, { code: "studio_too_large", problem: { size: bytes(file.size), max: bytes(FILE_BYTES_MAX) } });
        continue;
      }
      const entry = { name: file.name, progress: 0, stop: new AbortController() };
      const show = () => setSending((all) => all.map((one) => (one === entry ? entry : one)));
      setSending((all) => [...all, entry]);
      const key = keyOf();
      try {
        const kept = await upload(file, { key, signal: entry.stop.signal, onProgress(part) { entry.progress = part; show(); } });
        if (key !== keyOf()) return;
        uploaded.set(kept.file_id, kept);
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
  useEffect(() => {
    const field = { kind, take, add, room: () => max - latest.current.length };
    fields.add(field);
    return () => fields.delete(field);
  }, [kind, max]);
  const onDrop = (event) => {
    event.preventDefault();
    setOver(false);
    const own = event.dataTransfer.getData(OWN_OUTPUT);
    if (own) add(own);
    else if (event.dataTransfer.files.length) take(event.dataTransfer.files);
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
    <div role="alert">${refused.map(({ name, error }, place) => html`<p key=${place} class="field-error">${name}: ${explain(error)}</p>`)}</div>
    ${picking && html`<${Gallery} onClose=${() => setPicking(false)} onPick=${(one) => { add(one); setPicking(false); }} />`}
  </div>`;
}

function pictureOf(name, byId) {
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
