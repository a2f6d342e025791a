// The chat as a drawer on any page of the same site: `<script type="module" src="/chat/drawer.js"></script>`.
//
// It brings a button of its own, unless the page has an element with `data-llm-chat`, which then opens it. A page that
// brings its channel says so: `data-channel` on the script tag or on the opening element.
import "./page/chat.js";
import { element, icon, wear } from "./page/dom.js";
import { followTheme } from "./page/theme.js";
import { chosenLanguage, Words } from "./page/words.js";

const OPENERS = "[data-llm-chat]";

/** `<llm-chat-drawer>`: a dialog at the right edge of the window, and the button that opens it. */
export class LlmChatDrawer extends HTMLElement {
  #words = new Words(chosenLanguage());
  #dialog = null;
  #chat = null;
  #opener = null;
  #cameFrom = null;
  #isDressed = false;
  #early = null; // what was clicked before the styles had arrived
  #restoreScroll = () => {};
  #endings = [];

  async connectedCallback() {
    const listening = new AbortController();
    const { signal } = listening;
    this.#endings = [followTheme(this), () => listening.abort()];
    addEventListener("llm-chat-language", (event) => this.#speak(event.detail), { signal });
    document.addEventListener("click", (event) => this.#clicked(event), { signal });
    if (this.#dialog === null) {
      await this.#build();
    }
  }

  disconnectedCallback() {
    for (const end of this.#endings) {
      end();
    }
    this.#restoreScroll();
  }

  /** Whether it is open. */
  get open() {
    return this.#dialog?.open ?? false;
  }

  /** Open it; `from` gets the focus back. */
  show(from = document.activeElement) {
    if (!this.#isDressed) {
      this.#early = { from };
      return;
    }
    if (this.open || !this.isConnected) {
      return;
    }
    this.#cameFrom = from;
    this.#chat.removeAttribute("paused");
    this.#lockScroll();
    this.#dialog.showModal();
    this.#dialog.focus(); // and not the first button, where no keyboard is to be raised
    this.#chat.focusInput();
  }

  /** Slide it away and give the focus back. */
  async hide() {
    this.#early = null;
    if (!this.open || this.#dialog.classList.contains("closing")) {
      return;
    }
    this.#dialog.classList.add("closing");
    await Promise.allSettled(this.#dialog.getAnimations().map((animation) => animation.finished));
    this.#dialog.close();
  }

  async #build() {
    const root = this.attachShadow({ mode: "open" });
    this.#chat = element("llm-chat", { closable: true, paused: true, channel: this.getAttribute("channel") });
    this.#dialog = element("dialog", { "data-say-label": "title", tabindex: "-1" }, this.#chat);
    this.#opener = element(
      "button",
      { type: "button", class: "opener", "aria-haspopup": "dialog", onclick: () => this.show(this.#opener) },
      icon("chat"),
      element("span", { "data-say": "open" }),
    );
    this.#opener.hidden = document.querySelector(OPENERS) !== null;
    this.#chat.addEventListener("llm-chat-close", () => this.hide());
    this.#dialog.addEventListener("cancel", (event) => {
      event.preventDefault(); // Esc: it slides as well
      this.hide();
    });
    this.#dialog.addEventListener("click", (event) => this.#onShade(event) && this.hide());
    this.#dialog.addEventListener("close", () => this.#closed());
    await wear(root, "tokens.css", "drawer.css");
    this.#speak(this.#words.language);
    root.append(this.#words.apply(this.#opener), this.#words.apply(this.#dialog));
    this.#isDressed = true;
    if (this.#early !== null) {
      this.show(this.#early.from);
    }
  }

  #onShade(event) {
    const { left } = this.#dialog.getBoundingClientRect();
    return event.target === this.#dialog && event.clientX < left;
  }

  #clicked(event) {
    const opener = event.target instanceof Element ? event.target.closest(OPENERS) : null;
    if (opener !== null) {
      event.preventDefault();
      this.show(opener);
    }
  }

  #closed() {
    this.#dialog.classList.remove("closing");
    this.#chat.setAttribute("paused", "");
    this.#restoreScroll();
    this.#restoreScroll = () => {};
    this.#cameFrom?.focus?.();
    this.#cameFrom = null;
  }

  // The page behind neither scrolls nor jumps when its scrollbar goes.
  #lockScroll() {
    const { style } = document.documentElement;
    const before = { overflow: style.overflow, paddingRight: style.paddingRight };
    const bar = innerWidth - document.documentElement.clientWidth;
    style.overflow = "hidden";
    if (bar > 0) {
      style.paddingRight = `${bar}px`;
    }
    this.#restoreScroll = () => Object.assign(style, before);
  }

  #speak(language) {
    this.#words.language = language;
    this.lang = language;
    if (this.#opener !== null) {
      this.#words.apply(this.#opener);
      this.#words.apply(this.#dialog);
    }
  }
}

/** Put the drawer on this page, once. */
function place() {
  if (document.querySelector("llm-chat-drawer") !== null) {
    return;
  }
  const named = document.querySelector('script[src*="drawer.js"][data-channel], [data-llm-chat][data-channel]');
  document.body.append(element("llm-chat-drawer", { channel: named?.dataset.channel || null }));
}

customElements.define("llm-chat-drawer", LlmChatDrawer);
place();
