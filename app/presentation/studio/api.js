// The public API, and nothing beside it. The key goes into a header, never into a URL.

// By where this file is, so that the page works behind any path of a proxy.
const BASE = new URL("../../", import.meta.url);

export const apiBase = BASE.href.replace(/\/$/, "");
export const address = (path) => new URL(path.replace(/^\//, ""), BASE);

export class ApiError extends Error {
  constructor(problem, status, headers) {
    super(problem.detail ?? String(status));
    Object.assign(this, { problem, status, code: problem.code ?? "unknown", fields: problem.errors ?? [] });
    this.retryAfter = Number(headers?.get("Retry-After") ?? 0);
  }
}

export class NoConnection extends Error {
  code = "no_connection";
}

export async function ask(method, path, { key, body, headers = {}, signal, keepalive } = {}) {
  const sent = { ...headers };
  if (key) sent["X-API-Key"] = key;
  if (body !== undefined) sent["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(address(path), {
      method,
      headers: sent,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      keepalive,
      cache: key ? "no-store" : "default",
      credentials: "omit",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new NoConnection();
  }
  return answer;
}

export async function call(method, path, options) {
  const answer = await ask(method, path, options);
  if (!answer.ok) throw await problemOf(answer);
  if (answer.status === 204) return null;
  try {
    return await answer.json();
  } catch {
    throw new NoConnection();
  }
}

export async function problemOf(answer) {
  let problem = {};
  try {
    problem = await answer.json();
  } catch {
    // Whatever stands between may answer in words of its own.
  }
  return new ApiError(problem, answer.status, answer.headers);
}

// fetch does not say how far it is with what it sends.
export function upload(file, { key, onProgress, signal }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", address("/files"));
    request.setRequestHeader("X-API-Key", key);
    request.setRequestHeader("Content-Type", file.type || "application/octet-stream");
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onerror = () => reject(new NoConnection());
    request.onabort = () => reject(new DOMException("stopped", "AbortError"));
    request.onload = () => {
      let content = {};
      try {
        content = JSON.parse(request.responseText);
      } catch {
        // As in problemOf.
      }
      if (request.status === 201) resolve(content);
      else reject(new ApiError(content, request.status));
    };
    signal?.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}

// A link leads to the address that the operator published. The page may have been opened by another name of it.
export function mediaUrl(link) {
  if (!link) return null;
  const url = new URL(link, BASE);
  const place = url.pathname.lastIndexOf("/media/");
  return place < 0 ? null : address(url.pathname.slice(place) + url.search).href;
}

export function uuid() {
  if (crypto.randomUUID) return crypto.randomUUID();
  // Without TLS, and not on this machine, browsers have no randomUUID.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 15) | 64;
  bytes[8] = (bytes[8] & 63) | 128;
  const text = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return text.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
