// A list that the full key is needed for, and what is done with its rows.
import { call } from "./api.js";
import { useEffect, useRef, useState } from "./html.js";

const NONE = { of: null, error: null };

export function useList(full, path) {
  const [items, setItems] = useState(null);
  const [error, setError] = useState(null);
  // What went wrong is said in the row that it is about.
  const [trouble, setTrouble] = useState(NONE);
  const underWay = useRef(new Set());
  const load = async () => {
    try {
      setItems((await call("GET", path, { key: full })).items);
      setError(null);
    } catch (failure) {
      setError(failure);
    }
  };
  // One press too many would rotate again, and end the secret that is to work on.
  const act = async (id, work) => {
    if (underWay.current.has(id)) return null;
    underWay.current.add(id);
    setTrouble(NONE);
    try {
      const made = await work();
      await load();
      return made;
    } catch (failure) {
      setTrouble({ of: id, error: failure });
      return null;
    } finally {
      underWay.current.delete(id);
    }
  };
  useEffect(() => { load(); }, [full]);
  return { items, error, load, act, trouble };
}
