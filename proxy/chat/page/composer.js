// The input: grows to six lines, sends by Enter where that is meant, and turns its button into "stop" during an answer.
import { composes, element, icon } from "./dom.js";

const ONE_PRESS_MS = 10;

/** The form under the conversation. */
export class Composer {
  #words;
  #actions;
  #composing = false;
  #composedAt = -Infinity;
  #mode = "send";
  #blocked = false;

  /**
   * @param words the language's `Words`
   * @param actions `{send(text), stop()}`
   */
  constructor(words, actions) {
    this.#words = words;
    this.#actions = actions;
    const labels = { "data-say-label": "input", "data-say-placeholder": "placeholder" };
    this.text = element("textarea", { rows: "1", ...labels, autocomplete: "off" });
    this.text.enterKeyHint = this.#enterSends() ? "send" : "enter";
    this.button = element("button", { type: "submit", class: "send" });
    this.root = element("form", { class: "composer" }, this.text, this.button);
    this.#listen();
    this.show("send");
  }

  /** Say whether the button sends ("send"), stops ("stop"), or waits until the stop is through ("stopping"). */
  show(mode) {
    this.#mode = mode;
    const picture = mode === "send" ? "send" : "stop";
    this.button.replaceChildren(icon(picture));
    this.button.dataset.sayLabel = mode;
    this.button.dataset.mode = mode;
    this.#words.apply(this.button);
    this.#refresh();
  }

  /** Nothing can be sent for now, as during a request. */
  block(blocked) {
    this.#blocked = blocked;
    this.#refresh();
  }

  /** Empty the input after its text was accepted, unless something else has been written meanwhile. */
  clear(accepted) {
    if (this.text.value.trim() !== accepted) {
      return;
    }
    this.text.value = "";
    this.#fit();
    this.#refresh();
  }

  /** Put a text in, for the visitor to see what is being sent, unless he has written one himself. */
  fill(text) {
    if (this.text.value.trim() !== "") {
      return;
    }
    this.text.value = text;
    this.#fit();
    this.#refresh();
  }

  #listen() {
    this.text.addEventListener("input", () => {
      this.#fit();
      this.#refresh();
    });
    this.text.addEventListener("compositionstart", () => (this.#composing = true));
    this.text.addEventListener("compositionend", (event) => {
      this.#composing = false;
      this.#composedAt = event.timeStamp;
    });
    // Some input methods never end a composition that lost its focus.
    this.text.addEventListener("blur", () => (this.#composing = false));
    this.text.addEventListener("keydown", (event) => this.#keydown(event));
    this.root.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#press();
    });
  }

  #keydown(event) {
    const composing = composes(event) || this.#composing;
    // Safari ends the composition before it tells of the Enter that ended it: one key press, at one time.
    const ended = event.timeStamp - this.#composedAt < ONE_PRESS_MS;
    if (event.key !== "Enter" || composing || ended) {
      return;
    }
    const meant = event.ctrlKey || event.metaKey || (this.#enterSends() && !event.shiftKey && !event.altKey);
    if (!meant) {
      return;
    }
    event.preventDefault();
    if (this.#mode === "send" && !event.repeat) {
      this.#press();
    }
  }

  // Where there is no hardware keyboard, Enter is the only way to a new line; the button sends.
  #enterSends() {
    return !matchMedia("(pointer: coarse)").matches;
  }

  #press() {
    if (this.#mode === "stop") {
      this.#actions.stop();
    } else if (this.#ready()) {
      this.#actions.send(this.text.value.trim());
    }
  }

  #ready() {
    return this.#mode === "send" && !this.#blocked && this.text.value.trim() !== "";
  }

  // `aria-disabled` and not `disabled`: the focus stays where it is when the button changes its meaning.
  #refresh() {
    this.button.setAttribute("aria-disabled", String(this.#mode !== "stop" && !this.#ready()));
  }

  #fit() {
    const { style } = this.text;
    style.height = "auto";
    style.height = `${this.text.scrollHeight}px`; // the style sheet ends it at six lines
    style.overflowY = this.text.scrollHeight > this.text.clientHeight + 1 ? "auto" : "hidden";
  }
}
