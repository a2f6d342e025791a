// `<llm-chat>`: a whole conversation in a shadow root. The page and the drawer are frames around it.
//
// Attributes: `channel` (the host page's own uuid; without it the session's), `closable` (has a close button, which fires
// `llm-chat-close`), `paused` (not connected: the drawer is shut).
import { Composer } from "./composer.js";
import { copyText } from "./clipboard.js";
import { Connection } from "./connection.js";
import { icon, wear } from "./dom.js";
import { Follow } from "./follow.js";
import { Conversations, newChannel } from "./conversations.js";
import { offerFile } from "./export.js";
import { buildFrame } from "./frame.js";
import { Notices } from "./notices.js";
import { recall, recallInTab, remember, rememberInTab } from "./preferences.js";
import { SilenceWatch } from "./silence.js";
import { currentTheme, followTheme, toggleTheme } from "./theme.js";
import { Transcript } from "./transcript.js";
import { keepVisible } from "./visible_height.js";
import { Words } from "./words.js";

const BASE = new URL("..", import.meta.url);
const COPIED_MS = 2000;
const STOPPING_MS = 5000;
const HISTORY_MS = 150; // after the stream opened: what is kept has come by then
const FIRST_SIGHT_MS = 1500; // without a stream, the empty page is shown by then
const SPOKEN = { thinking: "statusThinking", answering: "statusAnswering", done: "statusDone", stopped: "stopped" };

/** The conversation as an element. */
export class LlmChat extends HTMLElement {
  static observedAttributes = ["paused"];

  #words = new Words();
  #parts = null;
  #connection = null;
  #transcript = null;
  #composer = null;
  #conversations = null;
  #follow = null;
  #notices = null;
  #endings = [];
  #settled = false;
  #stopping = 0;
  #leaving = false; // a stop had no effect: the next press leaves the answer
  #silence = new SilenceWatch({
    live: () => this.#transcript.live !== null && this.#connection.link === "open",
    ask: () => this.#connection.ask(),
    renew: () => this.#connection.renew(),
    lost: () => this.#breakOff(),
  });

  connectedCallback() {
    this.lang = this.#words.language;
    this.#endings = [followTheme(this), keepVisible(this)];
    const listening = new AbortController();
    const { signal } = listening;
    this.#endings.push(() => listening.abort());
    addEventListener("llm-chat-language", (event) => this.#speak(event.detail), { signal });
    addEventListener("llm-chat-theme", () => this.#nameTheme(), { signal });
    if (this.#parts === null) {
      this.#build();
      this.#dress();
    }
    this.#resume();
  }

  disconnectedCallback() {
    this.#connection.close();
    for (const end of this.#endings) {
      end();
    }
  }

  attributeChangedCallback() {
    if (this.#parts !== null) {
      this.#resume();
    }
  }

  /** Put the cursor into the input, unless that would raise a keyboard that nobody asked for. */
  focusInput() {
    if (!matchMedia("(pointer: coarse)").matches) {
      this.#composer.text.focus({ preventScroll: true });
    }
  }

  #resume() {
    if (this.hasAttribute("paused")) {
      this.#connection.close();
    } else if (this.isConnected) {
      this.#connection.open();
    }
  }

  async #dress() {
    await wear(this.shadowRoot, "tokens.css", "chat.css", "code.css", "message.css", "conversations.css");
    this.#parts.chat.hidden = false;
    if (recall("list") === "shown" && !this.#listCovers) {
      this.#toggleList(true);
    }
    if (!this.hasAttribute("closable")) {
      this.focusInput();
    }
  }

  #build() {
    const root = this.attachShadow({ mode: "open" });
    this.#composer = new Composer(this.#words, { send: (text) => this.#send(text), stop: () => this.#stop() });
    this.#conversations = this.#buildConversations();
    const parts = this.#parts = buildFrame(this.#composer.root, this.#conversations.root, {
      list: () => this.#toggleList(),
      fresh: () => this.#startAnew(),
      language: () => this.#words.toggle(),
      theme: toggleTheme,
      close: this.hasAttribute("closable") ? () => this.dispatchEvent(new CustomEvent("llm-chat-close")) : null,
      example: (text) => this.#try(text),
      toEnd: () => this.#follow.attach(),
      model: (name) => remember("model", name),
    });
    this.#notices = new Notices(this.#words);
    parts.foot.prepend(this.#notices.root);
    root.append(this.#words.apply(parts.chat));
    const blank = () => this.#transcript.empty;
    this.#follow = new Follow(parts.scroller, parts.column, blank, () => this.#refresh());
    this.#transcript = new Transcript(parts.log, {
      words: this.#words,
      copy: (text, button) => this.#copy(text, button),
      retry: () => this.#again(),
      edit: (text, before) => this.#edit(text, before),
      open: (channel) => this.#open(channel),
      reading: () => !this.#follow.following,
    });
    const channel = this.getAttribute("channel") ?? (recallInTab("conversation") || null);
    this.#connection = new Connection(BASE, channel, () => this.#transcript.live === null);
    this.#listen(this.#connection);
    this.#composer.text.addEventListener("input", () => this.#notices.clear());
    setTimeout(() => this.#settle(), FIRST_SIGHT_MS);
    this.#nameTheme();
    if (recall("title")) {
      this.#entitle(recall("title"));
    }
    this.#refresh();
  }

  #listen(connection) {
    connection.addEventListener("message", ({ detail }) => {
      this.#transcript.message(detail, detail.at + connection.skew < connection.openedAt);
      this.#took();
    });
    connection.addEventListener("settings", ({ detail }) => this.#settings(detail));
    connection.addEventListener("state", ({ detail: { state, at, seconds, model } }) => {
      this.#transcript.state(state, at + connection.skew, {
        seconds: typeof seconds === "number" ? seconds : null,
        model: typeof model === "string" ? model : null,
      });
      if (at + connection.skew >= connection.openedAt && Object.hasOwn(SPOKEN, state)) {
        this.#notices.speak(SPOKEN[state]);
      }
      this.#took();
    });
    connection.addEventListener("link", ({ detail }) => {
      if (detail === "foreign" && connection.channel !== this.getAttribute("channel")) {
        this.#forgetChannel();
        return;
      }
      this.#notices.link(detail);
      if (detail === "open") {
        this.#silence.start();
        setTimeout(() => this.#settle(), HISTORY_MS);
      }
      this.#refresh();
    });
    // The service knows this visitor no more, after a restart without a secret say. What was said stays to be read.
    connection.addEventListener("moved", () => {
      if (this.#transcript.live !== null) {
        this.#transcript.breakOff();
      }
      this.#refresh();
    });
  }

  // A conversation of an earlier session, which is another visitor's now. What was said stays to be read.
  #forgetChannel() {
    rememberInTab("conversation", "");
    if (this.#transcript.live !== null) {
      this.#transcript.breakOff();
    }
    this.#connection.switchTo(this.getAttribute("channel"));
    this.#refresh();
  }

  #took() {
    this.#silence.heard();
    this.#refresh();
  }

  #breakOff() {
    this.#transcript.breakOff();
    this.#refresh();
  }

  #settle() {
    this.#settled = true;
    this.#refresh();
  }

  #refresh() {
    if (this.#follow === null || this.#transcript === null) {
      return;
    }
    const { chat, empty, toEnd } = this.#parts;
    const { live } = this.#transcript;
    if (live === null) {
      clearTimeout(this.#stopping);
      this.#stopping = 0;
      this.#leaving = false;
    }
    const mode = live === null ? "send" : this.#stopping === 0 ? "stop" : "stopping";
    if (this.#composer.button.dataset.mode !== mode) {
      this.#composer.show(mode);
    }
    chat.dataset.state = live ?? "idle";
    chat.dataset.link = this.#connection?.link ?? "connecting";
    empty.hidden = !this.#transcript.empty || !this.#settled;
    toEnd.parentElement.classList.toggle("away", !this.#follow.following && !this.#transcript.empty);
    toEnd.hidden = this.#follow.following || this.#transcript.empty;
  }

  #try(text) {
    this.#composer.fill(text);
    this.#send(text);
  }

  async #send(text) {
    if (this.#transcript.live !== null) {
      return;
    }
    this.#composer.block(true);
    const accepted = await this.#ask("dialogue", { prompt: text, ...this.#chosenModel });
    this.#composer.block(false);
    if (accepted) {
      this.#composer.clear(text);
      this.#follow.attach();
      if (!this.#conversations.root.hidden) {
        this.#conversations.refresh();
      }
    }
    this.focusInput();
  }

  // The button that was pressed disappears; the focus must not.
  async #again() {
    if (await this.#ask("regenerate", this.#chosenModel)) {
      const target = matchMedia("(pointer: coarse)").matches ? this.#parts.scroller : this.#composer.text;
      target.focus({ preventScroll: true });
    }
  }

  // The edited question goes on from what precedes it, in a conversation of its own: this one stays as it is.
  async #edit(prompt, before) {
    const source = this.#connection.channel;
    const target = newChannel();
    const kind = await this.#post("dialogue", { prompt, source, before, ...this.#chosenModel }, target);
    if (kind === "accepted") {
      this.#open(target);
      this.focusInput();
    }
    return kind === "accepted";
  }

  get #chosenModel() {
    const { model } = this.#parts;
    return model.hidden ? {} : { model: model.value };
  }

  #settings({ title, models, model }) {
    const { model: select } = this.#parts;
    if (title !== null) {
      this.#entitle(title);
    }
    remember("title", title ?? "");
    select.hidden = models.length < 2;
    if ([...select.options].map((option) => option.value).join("\n") !== models.join("\n")) {
      const kept = recall("model");
      select.replaceChildren(...models.map((name) => new Option(name, name)));
      select.value = models.includes(kept) ? kept : model;
    }
  }

  #entitle(title) {
    const { title: heading } = this.#parts;
    delete heading.dataset.say;
    heading.textContent = title;
    this.dispatchEvent(new CustomEvent("llm-chat-title", { detail: title, bubbles: true }));
  }

  async #stop() {
    if (this.#leaving) {
      this.#notices.clear();
      this.#transcript.leave();
      this.#refresh();
      return;
    }
    this.#stopping = setTimeout(() => this.#notStopped("notStopped"), STOPPING_MS);
    this.#refresh();
    if (!(await this.#ask("stop"))) {
      this.#notStopped();
    }
  }

  #notStopped(words = null) {
    clearTimeout(this.#stopping);
    this.#stopping = 0;
    this.#leaving = true;
    if (words !== null) {
      this.#notices.reject(words);
    }
    this.#refresh();
  }

  // The one before stays in the list, and its answer goes on.
  #startAnew() {
    if (!this.#transcript.empty) {
      this.#open(null);
      this.#notices.speak("begun");
    }
    this.focusInput();
  }

  /** Show another conversation; null is a new one. */
  #open(channel) {
    this.#notices.clear();
    this.#transcript.clear();
    this.#settled = channel === null;
    const chosen = channel ?? newChannel();
    rememberInTab("conversation", chosen);
    this.#connection.switchTo(chosen);
    this.#follow.attach();
    this.#refresh();
    if (!this.#conversations.root.hidden) {
      this.#conversations.refresh();
    }
  }

  #toggleList(show = this.#conversations.root.hidden) {
    const { toggle, veil } = this.#parts;
    this.#conversations.root.hidden = veil.hidden = !show;
    toggle.setAttribute("aria-expanded", String(show));
    remember("list", show ? "shown" : "");
    if (show) {
      this.#conversations.refresh();
      this.#conversations.focus();
    } else {
      toggle.focus({ preventScroll: true });
    }
  }

  get #listCovers() {
    return getComputedStyle(this.#conversations.root).position === "absolute";
  }

  #buildConversations() {
    return new Conversations(this.#words, {
      read: (search) => this.#connection.conversations(search),
      current: () => this.#connection.channel,
      open: (channel) => {
        this.#open(channel);
        if (channel !== null && this.#listCovers) {
          this.#toggleList(false);
        }
      },
      rename: async (channel, title) => (await this.#post("rename", { title }, channel)) === "accepted",
      remove: async (channel, last) => {
        const kind = (await this.#connection.post("reset", {}, channel, last)).kind;
        if (kind !== "accepted" && !last) {
          this.#notices.reject("notRemoved");
        }
        return kind === "accepted";
      },
      download: () => offerFile(this.#transcript.title, this.#transcript.markdown),
      close: () => this.#toggleList(false),
    });
  }

  async #ask(action, body) {
    return (await this.#post(action, body)) === "accepted";
  }

  async #post(action, body, channel = this.#connection.channel) {
    this.#notices.clear();
    const answer = await this.#connection.post(action, body, channel);
    if (answer.kind !== "accepted") {
      this.#notices.rejected(answer, action === "dialogue");
    }
    return answer.kind;
  }

  async #copy(text, button) {
    const said = (await copyText(text, this.shadowRoot)) ? "copied" : "notCopied";
    const label = button.querySelector("[data-say]");
    const before = label.dataset.before ?? label.dataset.say;
    label.dataset.before = before;
    this.#words.set(label, said);
    this.#notices.speak(said);
    clearTimeout(Number(label.dataset.timer));
    label.dataset.timer = setTimeout(() => this.#words.set(label, before), COPIED_MS);
  }

  #speak(language) {
    this.#words.language = language;
    this.lang = language;
    this.#words.apply(this.#parts.chat);
    this.#conversations.speak();
  }

  #nameTheme() {
    const dark = currentTheme() === "dark";
    const button = this.#parts.theme;
    button.dataset.sayLabel = dark ? "toLight" : "toDark";
    button.replaceChildren(icon(dark ? "sun" : "moon"));
    this.#words.apply(button);
  }
}

customElements.define("llm-chat", LlmChat);
