// What the tab is called: how many runs are under way, and how one ended that nobody was looking at.
import { useEffect, useRef, useState } from "./html.js";
import { FINAL, jobs } from "./jobs.js";
import { unsent } from "./runs.js";
import { useStore } from "./store.js";
import { t } from "./text.js";

const NEWEST = 50;

export function Title({ place }) {
  const { byId, order } = useStore(jobs);
  const { items } = useStore(unsent);
  const underWay = useRef([]);
  const [ended, setEnded] = useState(null);
  const running = order.slice(0, NEWEST).filter((id) => !FINAL.has(byId.get(id).status));
  useEffect(() => {
    const done = underWay.current.map((id) => byId.get(id)).find((job) => job && FINAL.has(job.status));
    underWay.current = running;
    if (done && document.hidden) setEnded(done.status);
  });
  useEffect(() => {
    const look = () => document.hidden || setEnded(null);
    document.addEventListener("visibilitychange", look);
    return () => document.removeEventListener("visibilitychange", look);
  }, []);
  useEffect(() => {
    const count = running.length + items.length;
    const told = [count ? `(${count})` : "", ended ? `${t(`status.${ended}`)} ·` : "", t(`nav.${place}`), "· Tollgate"];
    document.title = told.filter(Boolean).join(" ");
  });
  return null;
}
