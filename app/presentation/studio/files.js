// What is known of the files that a draft names: those that were uploaded here, and those that were made.
import { jobs } from "./jobs.js";
import { fieldsOf } from "./schema.js";
import { onLeave } from "./session.js";
import { createStore } from "./store.js";
import { bytes } from "./text.js";

export const uploaded = createStore({ byId: new Map() });
onLeave(() => uploaded.set({ byId: new Map() }));

export function remember(file) {
  uploaded.set({ byId: new Map(uploaded.get().byId).set(file.file_id, file) });
}

export function factsOf(name) {
  const [, file, job, place] = /^(?:file:(.+)|output:([^/]+)\/(\d+))$/.exec(name) ?? [];
  return file ? uploaded.get().byId.get(file) : jobs.get().byId.get(job)?.outputs?.[Number(place)];
}

// What the model will not take, said before the service is asked.
export function unfitIn(model, values) {
  return fieldsOf(model)
    .filter(({ kind }) => kind.startsWith("media"))
    .flatMap(({ name, schema, kind }) => [values[name] ?? []].flat().map((one, place) => {
      const problem = problemOf(schema["x-limits"] ?? {}, factsOf(one) ?? {});
      return problem && { ...problem, pointer: kind === "media-list" ? `/${name}/${place}` : `/${name}` };
    }))
    .filter(Boolean);
}

// In the order in which the service looks.
function problemOf(limits, { content_type: type, size_bytes: size, width, height, duration_seconds: seconds }) {
  const told = (code, values) => ({ code: `studio_${code}`, values });
  if (type && limits.content_types && !limits.content_types.includes(type)) return told("type", { type: nameOf(type), types: limits.content_types.map(nameOf).join(", ") });
  if (size > limits.size_bytes_max) return told("bytes", { size: bytes(size), max: bytes(limits.size_bytes_max) });
  if (seconds && (seconds < limits.seconds_min || seconds > limits.seconds_max)) return told("seconds", { is: seconds, from: limits.seconds_min, to: limits.seconds_max });
  if (!width || !height) return null;
  const [shorter, longer] = [Math.min(width, height), Math.max(width, height)];
  const is = { width: String(width), height: String(height) };
  if (shorter < limits.side_min) return told("side_min", { ...is, min: limits.side_min });
  if (longer > limits.side_max) return told("side_max", { ...is, max: limits.side_max });
  if (width * height < limits.pixels_min) return told("pixels_min", { ...is, min: limits.pixels_min });
  if (width * height > limits.pixels_max) return told("pixels_max", { ...is, max: limits.pixels_max });
  if (longer > shorter * limits.ratio_max) return told("ratio", { ...is, max: limits.ratio_max });
  return null;
}

const nameOf = (type) => (type === "audio/mpeg" ? "MP3" : type.split("/")[1].toUpperCase());
