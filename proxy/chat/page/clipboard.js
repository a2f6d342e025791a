// Copies a text, even where the browser has no clipboard for a page: over plain HTTP, or without permission.
import { element } from "./dom.js";

/**
 * Copy a text.
 * @param text what to copy
 * @param root the shadow root whose focus is to stay; the selection must lie in it, as all else may be inert
 * @returns whether that worked
 */
export async function copyText(text, root) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text, root);
  }
}

function copyBySelection(text, root) {
  const holder = element("textarea", { class: "sr-only", "aria-hidden": "true", tabindex: "-1" });
  const focused = root.activeElement;
  holder.value = text;
  root.append(holder);
  holder.select();
  const copied = document.execCommand("copy");
  holder.remove();
  focused?.focus({ preventScroll: true });
  return copied;
}
