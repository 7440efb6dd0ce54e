// What a model's JSON Schema says of its form.
const PLACES = ["input", "output", "more"];
// Text and media change no price: a quote is not asked for anew at each letter.
const LONG_TEXT = 200;

export function fieldsOf(model) {
  const { properties, required = [] } = model.parameters;
  return Object.entries(properties)
    .map(([name, schema]) => ({ name, schema, kind: kindOf(schema), isRequired: required.includes(name) }))
    // What must be there comes before what may be, and a picture before the words that say what to do with it.
    .sort((one, other) => other.isRequired - one.isRequired || isPicture(other) - isPicture(one) || one.schema["x-order"] - other.schema["x-order"]);
}

const isPicture = ({ schema, isRequired }) => isRequired && schema["x-media"] === "image";

// Long texts that may be left out would keep all else out of sight.
const isExtra = ({ name, kind, isRequired }) => kind === "text" && !isRequired && name !== "prompt";
const placeOf = (field) => (isExtra(field) ? "more" : field.schema["x-group"] ?? "more");

export function groupsOf(fields) {
  const groups = PLACES.map((place) => [place, fields.filter((field) => placeOf(field) === place)]);
  return groups.filter(([, found]) => found.length);
}

function kindOf(schema) {
  if (schema["x-media"]) return schema.type === "array" ? "media-list" : "media";
  if (schema.enum) return "choice";
  if (schema.oneOf) return "size";
  if (schema.type === "boolean") return "switch";
  if (schema.type === "integer" || schema.type === "number") return "number";
  return (schema.maxLength ?? LONG_TEXT) >= LONG_TEXT ? "text" : "line";
}

export const isSeed = (field) => field.name === "seed" && field.kind === "number";

const isEmpty = (value) => value === undefined || value === null || value === "" || (Array.isArray(value) && !value.length);

// What is sent: nothing that the user left to the model.
export function bodyOf(model, values) {
  const known = model.parameters.properties;
  return Object.fromEntries(Object.entries(values).filter(([name, value]) => name in known && !isEmpty(value)));
}

const UNPRICED = new Set(["text", "line", "media", "media-list"]);

// And whatever JSON has that the model does not take: the service says what is wrong with it.
export function pricedPart(model, values) {
  const kinds = Object.fromEntries(fieldsOf(model).map(({ name, kind }) => [name, kind]));
  const isPriced = ([name, value]) => !isEmpty(value) && !(UNPRICED.has(kinds[name]) && TAKEN[kinds[name]](value));
  return Object.fromEntries(Object.entries(values).filter(isPriced));
}

// Which values a field of the form can show. What was typed as JSON may be anything.
const isText = (value) => typeof value === "string";
const TAKEN = {
  text: isText,
  line: isText,
  media: isText,
  "media-list": (value) => Array.isArray(value) && value.every(isText),
  choice: (value, schema) => schema.enum.includes(value),
  switch: (value) => typeof value === "boolean",
  number: (value, schema) => typeof value === "number" && value >= (schema.minimum ?? -Infinity) && value <= (schema.maximum ?? Infinity),
  size: (value, schema) => (isText(value) ? presetsOf(schema)?.enum.includes(value) : typeof value.width === "number" && typeof value.height === "number"),
};

// Kept where the other model has the same field and takes the value.
export function carriedOver(values, model) {
  const kept = {};
  for (const { name, schema, kind } of fieldsOf(model)) {
    const value = values[name];
    if (isEmpty(value) || !TAKEN[kind](value, schema)) continue;
    if (kind === "media-list") kept[name] = value.slice(0, schema.maxItems ?? Infinity);
    else kept[name] = value;
  }
  // One picture fits where several are taken, and the other way round.
  const fields = fieldsOf(model);
  const list = fields.find(({ name }) => name === "image_urls");
  const one = fields.find(({ name }) => name === "image_url");
  if (list && isEmpty(kept.image_urls) && isText(values.image_url) && values.image_url) kept.image_urls = [values.image_url];
  if (one && isEmpty(kept.image_url) && isText(values.image_urls?.[0])) kept.image_url = values.image_urls[0];
  return kept;
}

export const presetsOf = (schema) => (schema.oneOf ?? []).find((one) => one.enum);
export const freeSizeOf = (schema) => (schema.oneOf ?? []).find((one) => one.properties);

// The example of the catalogue without its pictures, which are nobody's.
export function wordsOf({ example, parameters }) {
  return Object.fromEntries(Object.entries(example).filter(([name]) => !parameters.properties[name]?.["x-media"]));
}

// Width to height of what comes of it, as far as what is asked for tells that.
export function ratioOf(model, values) {
  const { image_size: sized = {}, aspect_ratio: shaped = {} } = model?.parameters.properties ?? {};
  const size = values.image_size ?? sized.default;
  const { width, height } = (sized["x-sizes"] ?? presetsOf(sized)?.["x-sizes"])?.[size] ?? size ?? {};
  if (width && height) return width / height;
  const [wide, high] = String(values.aspect_ratio ?? shaped.default).split(":").map(Number);
  return wide && high ? wide / high : undefined;
}

// What a person can be told before the service is asked.
export function missingIn(model, values) {
  return fieldsOf(model)
    .filter(({ name, isRequired }) => isRequired && (isEmpty(values[name]) || String(values[name]).trim() === ""))
    .map(({ name }) => ({ pointer: `/${name}`, code: "studio_missing" }));
}

export const TYPES = ["TEXT_TO_IMAGE", "IMAGE_TO_IMAGE", "TEXT_TO_VIDEO", "IMAGE_TO_VIDEO"];
export const PATHS = {
  TEXT_TO_IMAGE: "/generations/images/text-to-image",
  IMAGE_TO_IMAGE: "/generations/images/image-to-image",
  TEXT_TO_VIDEO: "/generations/videos/text-to-video",
  IMAGE_TO_VIDEO: "/generations/videos/image-to-video",
};
