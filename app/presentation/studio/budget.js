// What the key of this page may still spend, where it has a budget.
import { mine, onLeave } from "./session.js";
import { createStore } from "./store.js";

export const budget = createStore({ known: null });
let asked = 0;
onLeave(() => budget.set({ known: null }));

export async function askForBudget() {
  const number = (asked += 1);
  try {
    const { budget: known } = await mine("GET", "/keys/current");
    if (number === asked) budget.set({ known });
  } catch {
    // What is known is noted anew, so that whoever waits for it to renew waits and asks again.
    const { known } = budget.get();
    if (known && number === asked) budget.set({ known: { ...known } });
  }
}

// In tokens; null where the balance is the only bound.
export function budgetLeft() {
  const { known } = budget.get();
  return known && Math.max(0, known.tokens - known.spent_tokens);
}
