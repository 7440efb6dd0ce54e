// Choosing one of one's own pictures for a field.
import { mediaUrl } from "./api.js";
import { html, useState } from "./html.js";
import { jobs, loadMore, walkOf } from "./jobs.js";
import { Dialog, Empty } from "./parts.js";
import { promptOf, titleOf } from "./requests.js";
import { useStore } from "./store.js";
import { moment, t } from "./text.js";

const PAGE = 60;
const isPicture = ({ url, is_blanked: isBlanked, content_type: type }) => url && !isBlanked && (type ?? "").startsWith("image/");

export function Picker({ onClose, onPick }) {
  const { byId, order } = useStore(jobs);
  const [wanted, setWanted] = useState("");
  const [count, setCount] = useState(PAGE);
  const { hasMore, isLoading } = walkOf("");
  const text = wanted.trim().toLowerCase();
  const found = order.map((id) => byId.get(id))
    .map((job) => ({ job, words: promptOf(job) || titleOf(job) }))
    .filter(({ words }) => words.toLowerCase().includes(text))
    .flatMap(({ job, words }) => (job.outputs ?? []).map((output, place) => ({ job, words, output, place })).filter(({ output }) => isPicture(output)));
  const more = () => {
    setCount(count + PAGE);
    if (found.length < count + PAGE) loadMore("");
  };
  return html`<${Dialog} title=${t("media.gallery.title")} onClose=${onClose} isWide=${true}>
    <input type="search" aria-label=${t("media.gallery.search")} placeholder=${t("media.gallery.search")} value=${wanted} onInput=${(event) => setWanted(event.target.value)} />
    ${found.length > 0 ? html`<ul class="picker">${found.slice(0, count).map(({ job, words, output, place }) => html`<li key=${`${job.job_id}/${place}`}>
        <button type="button" title=${`${words} · ${moment(job.created_at)}`} onClick=${() => onPick(`output:${job.job_id}/${place}`)}><img loading="lazy" src=${mediaUrl(output.url)} alt="" /><span class="prompt">${words}</span></button></li>`)}</ul>`
      : text ? html`<p class="hint" role="status">${t("media.gallery.none")}</p>`
      : !hasMore && html`<${Empty} title=${t("media.gallery.empty")}><p>${t("media.gallery.empty.hint")}</p><//>`}
    ${(hasMore || found.length > count) && html`<p class="center"><button type="button" aria-disabled=${isLoading} onClick=${more}>${t("media.gallery.more")}</button></p>`}
  <//>`;
}
