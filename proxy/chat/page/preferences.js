// What a visitor chose earlier, in the browser's storage where that is allowed, else for as long as the page lives.

const PREFIX = "llm-chat-";
const EVERY_TAB = { storage: () => localStorage, unsaved: new Map() };
const THIS_TAB = { storage: () => sessionStorage, unsaved: new Map() };

/** The value kept under a name, or null. */
export function recall(name) {
  return read(EVERY_TAB, name);
}

/** Keep a value. */
export function remember(name, value) {
  write(EVERY_TAB, name, value);
}

/** The value that this tab keeps under a name; in a new tab it is the latest of any, which the tab then keeps. */
export function recallInTab(name) {
  const own = read(THIS_TAB, name);
  if (own !== null) {
    return own;
  }
  const latest = recall(name);
  write(THIS_TAB, name, latest ?? "");
  return latest;
}

/** Keep a value in this tab, and as the first of new ones. */
export function rememberInTab(name, value) {
  write(THIS_TAB, name, value);
  remember(name, value);
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

function read({ storage, unsaved }, name) {
  try {
    return storage().getItem(PREFIX + name) ?? unsaved.get(name) ?? null;
  } catch {
    return unsaved.get(name) ?? null;
  }
}

function write({ storage, unsaved }, name, value) {
  unsaved.set(name, value);
  try {
    storage().setItem(PREFIX + name, value);
  } catch {
    // A host page may forbid storage; the choice then lasts until it is left.
  }
}
