// What the draft costs, asked for while it changes.
import { useEffect, useState } from "./html.js";
import { mine } from "./session.js";
import { pricedPart } from "./schema.js";

const QUIET_MS = 220;

// `asked` changes where the price is to be asked for again, although the draft has stayed.
export function useQuote(model, values, asked) {
  const [quote, setQuote] = useState({ price: null, error: null, of: null });
  const body = model ? JSON.stringify({ type: model.type, model: model.model, ...pricedPart(model, values) }) : null;
  const of = `${asked} ${body}`;
  useEffect(() => {
    if (!body) return undefined;
    const stopped = new AbortController();
    const answer = (told) => setQuote({ ...told, of });
    const timer = setTimeout(() => ask(body, stopped, answer, 0), QUIET_MS);
    return () => {
      clearTimeout(timer);
      stopped.abort();
    };
  }, [of]);
  return { ...quote, isAsking: quote.of !== of };
}

async function ask(body, stopped, answer, attempt) {
  try {
    const price = await mine("POST", "/quotes", { body: JSON.parse(body), signal: stopped.signal });
    if (!stopped.signal.aborted) answer({ price, error: null });
  } catch (error) {
    if (stopped.signal.aborted) return;
    answer({ price: null, error });
    // Nothing is wrong with the draft: the price comes as soon as it can.
    if (error.code === "no_connection" || error.status >= 500 || error.status === 429) {
      const wait = Math.min(10_000, 1000 * 2 ** attempt);
      setTimeout(() => !stopped.signal.aborted && ask(body, stopped, answer, attempt + 1), wait);
    }
  }
}
