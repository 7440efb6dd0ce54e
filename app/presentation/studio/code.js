// A request as one would write it elsewhere. The key is never in it.
import { apiBase } from "./api.js";
import { PATHS } from "./schema.js";

// A terminal obeys some characters although they stand in quotes; in JSON and Python they can be written out.
const json = (value, space) => JSON.stringify(value, null, space)
  .replace(/[\u007f-\u009f\u2028-\u202e\u2066-\u2069]/g, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`);
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

export function asCurl({ type, model, body }) {
  const content = json({ model, ...body }, 2);
  return [
    `curl -s ${quoted(apiBase + PATHS[type])} \\`,
    '  -H "X-API-Key: $TOLLGATE_KEY" \\',
    "  -H 'Content-Type: application/json' \\",
    `  -d ${quoted(content)}`,
  ].join("\n");
}

export function asPython({ type, model, body }) {
  return `import os
import json
import urllib.request

API = ${JSON.stringify(apiBase)}
HEADERS = {"X-API-Key": os.environ["TOLLGATE_KEY"], "Content-Type": "application/json"}


def call(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(API + path, data, HEADERS)) as answer:
        return json.load(answer)


job = call(${JSON.stringify(PATHS[type])}, ${literal({ model, ...body }, 0)})
while True:
    job = call(f"/generations/{job['job_id']}?wait=30")
    if job["status"] in ("COMPLETED", "FAILED", "CANCELED"):
        break
print(job["error_message"] or "\\n".join(output["url"] for output in job["outputs"] if output["url"]))
`;
}

function literal(value, depth) {
  const inner = "    ".repeat(depth + 1);
  const outer = "    ".repeat(depth);
  if (value === true) return "True";
  if (value === false) return "False";
  if (value === null) return "None";
  if (Array.isArray(value)) return `[${value.map((one) => literal(one, depth)).join(", ")}]`;
  if (typeof value !== "object") return json(value);
  const lines = Object.entries(value).map(([name, one]) => `${inner}${json(name)}: ${literal(one, depth + 1)},\n`);
  return `{\n${lines.join("")}${outer}}`;
}
