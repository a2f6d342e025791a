// Light or dark: what the visitor chose, else what the system prefers.
import { recall, remember, watch } from "./preferences.js";

const CHANGED = "llm-chat-theme";

function chosen() {
  const theme = recall("theme");
  return theme === "dark" || theme === "light" ? theme : null;
}

/** The theme in force: "light" or "dark". */
export function currentTheme() {
  return chosen() ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
}

/** Turn to the other theme and keep that. */
export function toggleTheme() {
  remember("theme", currentTheme() === "dark" ? "light" : "dark");
  dispatchEvent(new CustomEvent(CHANGED));
}

/** Let an element wear the chosen theme as `data-theme`; gives a function that ends it. */
export function followTheme(element) {
  const apply = () => {
    const theme = chosen();
    if (theme === null) {
      delete element.dataset.theme;
    } else {
      element.dataset.theme = theme;
    }
  };
  apply();
  addEventListener(CHANGED, apply);
  const unwatch = watch("theme", apply);
  return () => {
    removeEventListener(CHANGED, apply);
    unwatch();
  };
}
