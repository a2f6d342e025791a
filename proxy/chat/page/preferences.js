// What a visitor chose earlier, in localStorage where that is allowed, else for as long as the page lives.

const PREFIX = "llm-chat-";
const unsaved = new Map();

/** The value kept under a name, or null. */
export function recall(name) {
  try {
    return localStorage.getItem(PREFIX + name) ?? unsaved.get(name) ?? null;
  } catch {
    return unsaved.get(name) ?? null;
  }
}

/** Keep a value. */
export function remember(name, value) {
  unsaved.set(name, value);
  try {
    localStorage.setItem(PREFIX + name, value);
  } catch {
    // A host page may forbid storage; the choice then lasts until it is left.
  }
}

/** Call back when another tab keeps a value under this name; gives a function that ends it. */
export function watch(name, callback) {
  const listen = (event) => {
    if (event.key === PREFIX + name) {
      callback();
    }
  };
  addEventListener("storage", listen);
  return () => removeEventListener("storage", listen);
}
