// What the draft costs, asked for while it changes.
import { useEffect, useState } from "./html.js";
import { mine } from "./session.js";
import { pricedPart } from "./schema.js";

const QUIET_MS = 220;

// `asked` changes where the price is to be asked for again, although the draft has stayed.
export function useQuote(model, values, asked) {
  const [quote, setQuote] = useState({ price: null, error: null, isAsking: true });
  const body = model ? JSON.stringify({ type: model.type, model: model.model, ...pricedPart(model, values) }) : null;
  useEffect(() => {
    if (!body) return undefined;
    const stopped = new AbortController();
    setQuote((before) => ({ ...before, isAsking: true }));
    const timer = setTimeout(() => ask(body, stopped, setQuote, 0), QUIET_MS);
    return () => {
      clearTimeout(timer);
      stopped.abort();
    };
  }, [body, asked]);
  return quote;
}

async function ask(body, stopped, setQuote, attempt) {
  try {
    const price = await mine("POST", "/quotes", { body: JSON.parse(body), signal: stopped.signal });
    if (!stopped.signal.aborted) setQuote({ price, error: null, isAsking: false });
  } catch (error) {
    if (stopped.signal.aborted) return;
    setQuote({ price: null, error, isAsking: false });
    // Nothing is wrong with the draft: the price comes as soon as it can.
    if (error.code === "no_connection" || error.status >= 500 || error.status === 429) {
      const wait = Math.min(10_000, 1000 * 2 ** attempt);
      setTimeout(() => !stopped.signal.aborted && ask(body, stopped, setQuote, attempt + 1), wait);
    }
  }
}
