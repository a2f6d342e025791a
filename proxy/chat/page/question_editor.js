// A question that is being rewritten, in the place of the question.
import { composes, element } from "./dom.js";

/** The form of one question. */
export class QuestionEditor {
  #text;
  #actions;
  #waiting = false;

  /**
   * @param words the language's `Words`
   * @param text the question as it is
   * @param actions `{save(text), cancel()}`; `save` tells whether the new question was taken
   */
  constructor(words, text, actions) {
    this.#actions = actions;
    this.#text = element("textarea", {
      "data-say-label": "editing",
      rows: "2",
      oninput: () => this.#fit(),
      onkeydown: (event) => this.#key(event),
    });
    this.#text.value = text;
    this.root = words.apply(element(
      "form",
      { class: "editor", onsubmit: (event) => this.#save(event) },
      this.#text,
      element(
        "div",
        { class: "choices" },
        element("button", { type: "button", class: "plain", "data-say": "cancel", onclick: () => actions.cancel() }),
        element("button", { type: "submit", class: "plain main", "data-say": "askAgain" }),
      ),
    ));
  }

  /** Put the cursor at the end of the text. */
  focus() {
    this.#fit();
    this.#text.focus();
    this.#text.setSelectionRange(this.#text.value.length, this.#text.value.length);
  }

  #key(event) {
    if (composes(event)) {
      return;
    }
    if (event.key === "Escape") {
      event.preventDefault(); // the drawer stays open
      event.stopPropagation();
      this.#actions.cancel();
    }
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      this.#save(event);
    }
  }

  async #save(event) {
    event.preventDefault();
    const text = this.#text.value.trim();
    if (text !== "" && !this.#waiting) {
      this.#waiting = true;
      await this.#actions.save(text);
      this.#waiting = false;
    }
  }

  #fit() {
    this.#text.style.height = "auto";
    this.#text.style.height = `${this.#text.scrollHeight + 2}px`;
  }
}
