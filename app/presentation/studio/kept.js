// What outlives a reload, for as long as somebody is signed in: with the key, so that both go together.
import { session, storage } from "./session.js";

export function read(name) {
  try {
    return JSON.parse(storage().getItem(name));
  } catch {
    return null;
  }
}

export function readAll(prefix) {
  return Object.keys(storage()).filter((name) => name.startsWith(prefix)).map(read).filter(Boolean);
}

// Whether it is kept: a store may be full.
export function write(name, value) {
  if (!session.get().signedIn) return false;
  try {
    storage().setItem(name, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

export function remove(name) {
  storage().removeItem(name);
}
