// Every sentence stands in one catalogue a language, of which one alone is loaded. The browser chooses, and the switch in
// the page.
import { createStore } from "./store.js";

const CHOICE = "tollgate-language";

export const languages = { en: "English", ru: "Русский" };
let texts;
// English needs none: it is the API's own language.
let sayings;

async function load(name) {
  const [catalogue, said] = await Promise.all([import(`./text.${name}.js`), name === "en" ? null : import(`./sayings.${name}.js`)]);
  texts = catalogue.default;
  sayings = said && { words: said.words, patterns: Object.entries(said.default).map(([english, text]) => [patternOf(english), text]) };
  document.documentElement.lang = name;
}

function chosen() {
  const kept = localStorage.getItem(CHOICE);
  if (Object.hasOwn(languages, kept)) return kept;
  const wanted = navigator.languages.map((language) => language.slice(0, 2)).find((name) => Object.hasOwn(languages, name));
  return wanted ?? "en";
}

export const language = createStore({ name: chosen() });
try {
  await load(language.get().name);
} catch {
  language.set({ name: "en" });
  await load("en");
}

export async function chooseLanguage(name) {
  try {
    await load(name);
  } catch {
    // The files of a release that is served no more: the next one has a page of its own.
    return location.reload();
  }
  localStorage.setItem(CHOICE, name);
  return language.set({ name });
}

// `{name}` is filled in; where a sentence counts, it has a form for each of the language's plurals.
export function t(key, values = {}) {
  const { name } = language.get();
  let text = texts[key] ?? key;
  if (typeof text === "object") text = text[new Intl.PluralRules(name).select(values.n)] ?? text.other;
  return text.replace(/\{(\w+)\}/g, (_, word) => (typeof values[word] === "number" ? number(values[word]) : values[word] ?? ""));
}

export const has = (key) => key in texts;
export const number = (value, digits = 2) =>
  new Intl.NumberFormat(language.get().name, { maximumFractionDigits: digits }).format(value);
export const tokens = (n) => t("tokens", { n });

// Of what the API has in both languages.
export const localized = (texts, otherwise = "") => texts?.[language.get().name] ?? texts?.en ?? otherwise;

export function moment(iso) {
  const options = { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" };
  return new Intl.DateTimeFormat(language.get().name, options).format(new Date(iso));
}

// Of the last two by their names, of others by their dates.
export function day(iso) {
  const { name } = language.get();
  const [now, then] = [new Date(), new Date(iso)];
  const ago = Math.round((now.setHours(0, 0, 0, 0) - new Date(then).setHours(0, 0, 0, 0)) / 86_400_000);
  const year = then.getFullYear() === now.getFullYear() ? undefined : "numeric";
  const text = ago === 0 || ago === 1 ? new Intl.RelativeTimeFormat(name, { numeric: "auto" }).format(-ago, "day")
    : new Intl.DateTimeFormat(name, { weekday: "long", day: "numeric", month: "long", year }).format(then);
  return text.charAt(0).toLocaleUpperCase(name) + text.slice(1);
}

export function seconds(value) {
  if (value < 100) return t("seconds", { n: Math.max(0, Math.round(value)) });
  return t("minutes", { n: Math.round(value / 60) });
}

// In one unit where both ends can be told in it.
export function secondsRange({ from, to }) {
  const unit = to < 100 ? 1 : from >= 60 ? 60 : 0;
  const first = unit ? number(Math.round(from / unit), 0) : seconds(from);
  const isOne = unit && Math.round(from / unit) === Math.round(to / unit);
  return isOne ? seconds(to) : t("range", { from: first, to: seconds(to) });
}

export function bytes(value) {
  return value < 1e6 ? t("kilobytes", { n: Math.ceil(value / 1e3) }) : t("megabytes", { n: Math.round(value / 1e5) / 10 });
}

// By the code, which does not change. English has few of them: the API's own words are English.
export function explain(error) {
  const figures = error.problem ?? {};
  const values = {
    required: figures.required_tokens, balance: figures.balance_tokens, missing: figures.missing_tokens,
    cost: figures.cost_tokens, budget: figures.budget_tokens, spent: figures.spent_tokens,
    seconds: error.retryAfter || undefined, size: figures.size, max: figures.max,
    renews: figures.renews_at ? moment(figures.renews_at) : t("never"),
  };
  if (has(`error.${error.code}`)) return t(`error.${error.code}`, values);
  return error.problem?.detail ?? t("error.unknown");
}

// In the API's own words where they are of this language or say what no catalogue has.
export function explainField(found) {
  return translated(found.detail) ?? (has(`field.${found.code}`) ? t(`field.${found.code}`, found.values) : found.detail);
}

// The API's sentence says what happened, its limits, and what to do: by the code we know the first and the last.
export function explainJob({ error_code: code, error_message: message }) {
  // What was charged is said beside it, by numbers.
  if (!has(`job.${code}`)) return message?.replace(/ Nothing was charged\.$/, "") ?? t("job.unknown");
  const place = message?.match(/ in ((?:\w+_\w+|prompt|seed|duration|resolution)(?:\/\d+)?)(?=[ .])/)?.[1];
  const limits = (message?.split(/(?<=\.) /) ?? []).map(translated).filter(Boolean);
  return [t(`job.${code}`), ...limits, place && t("job.in", { name: place })].filter(Boolean).join(" ");
}

// Why a delivery failed is told in sentences alone.
export const explainSentence = (sentence) => translated(sentence) ?? sentence;

// What the catalogue of models has in each language: it is the API's own sentence elsewhere.
const learnt = new Map();
export function learn(texts) {
  for (const text of texts) if (text?.en) learnt.set(text.en, text);
}

function translated(sentence) {
  if (!sentence || !sayings) return null;
  if (learnt.has(sentence)) return localized(learnt.get(sentence));
  for (const [pattern, text] of sayings.patterns) {
    const found = sentence.match(pattern);
    if (found) return text.replace(/\{(\d)\}/g, (_, place) => figureOf(found[place]));
  }
  return null;
}

function patternOf(said) {
  return new RegExp(`^${said.split("{}").map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("(.+?)")}$`);
}

// Numbers, units and lists, as they stand in the API's sentences.
function figureOf(text) {
  if (/^\d[\d,]*(\.\d+)?$/.test(text)) return number(Number(text.replaceAll(",", "")));
  return sayings.words.reduce((told, [said, word]) => told.replace(said, word), text);
}
