// What the chat shows next to the conversation: the state of the link, a rejection, and words for screen readers.
import { element, icon } from "./dom.js";

const BLIP_MS = 3000; // a stream ends now and then, and is back two seconds later: nobody has to know
const REJECTIONS = {
  too_often: "tooOften",
  too_long: "tooLong",
  forbidden: "forbidden",
  offline: "undelivered",
  failed: "undelivered",
};

/** The notices above the input. */
export class Notices {
  #words;
  #link;
  #rejection;
  #status;
  #timer = 0;
  #broken = false;

  constructor(words) {
    this.#words = words;
    this.#link = element("p", { class: "notice", role: "status" });
    this.#rejection = element("p", { class: "notice wrong", role: "alert" });
    this.#status = element("p", { class: "sr-only status", role: "status" });
    this.root = element("div", { class: "notices" }, this.#link, this.#rejection, this.#status);
  }

  /** Show the state of the link: "connecting", "open", "lost", "offline" or "foreign". */
  link(state) {
    clearTimeout(this.#timer);
    if (state === "offline" || state === "foreign") {
      this.#warn(state === "offline" ? "offline" : "forbidden");
    } else if (state === "lost") {
      this.#timer = setTimeout(() => this.#warn("lost"), this.#broken ? 0 : BLIP_MS);
    } else if (state === "open") {
      this.#link.replaceChildren();
      if (this.#broken) {
        this.#broken = false;
        this.speak("back");
      }
    }
  }

  /**
   * Show why a request was not taken.
   * @param answer as `Connection.post` gives it
   * @param unsent whether the text that was to be sent is still in the input
   */
  rejected(answer, unsent) {
    const key = REJECTIONS[answer.kind];
    if (answer.reason !== null || key === undefined) {
      const text = element("span");
      this.#words.explain(text, answer);
      this.#reject(text);
    } else {
      this.reject(key === "undelivered" && unsent ? "unsent" : key, answer.seconds);
    }
  }

  /** Show a rejection by the key of its words. */
  reject(key, n = null) {
    const text = element("span");
    this.#words.set(text, key, n);
    this.#reject(text);
  }

  /** Take a rejection away. */
  clear() {
    this.#rejection.replaceChildren();
  }

  /** Say something to screen readers alone. */
  speak(key) {
    this.#words.set(this.#status, key);
  }

  #warn(key) {
    this.#broken = true;
    const text = element("span");
    this.#words.set(text, key);
    this.#link.replaceChildren(icon("alert"), text);
  }

  #reject(text) {
    this.#rejection.replaceChildren(icon("alert"), text);
  }
}
