// A list that the full key is needed for, and what is done with its rows.
import { call } from "./api.js";
import { useEffect, useState } from "./html.js";

const NONE = { of: null, error: null };

export function useList(full, path) {
  const [items, setItems] = useState(null);
  const [error, setError] = useState(null);
  // What went wrong is said in the row that it is about.
  const [trouble, setTrouble] = useState(NONE);
  const load = async () => {
    try {
      setItems((await call("GET", path, { key: full })).items);
      setError(null);
    } catch (failure) {
      setError(failure);
    }
  };
  const act = async (id, work) => {
    setTrouble(NONE);
    try {
      const made = await work();
      await load();
      return made;
    } catch (failure) {
      setTrouble({ of: id, error: failure });
      return null;
    }
  };
  useEffect(() => { load(); }, [full]);
  return { items, error, load, act, trouble };
}
