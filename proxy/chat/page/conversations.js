// The list of the visitor's conversations: open, search, rename, delete with undo, export.
import { composes, element, icon } from "./dom.js";

const UNDO_MS = 6000;
const TYPING_MS = 250; // without another letter, until the service searches the texts
const DAY_MS = 86_400_000;

/** A new channel: 122 random bits, as nobody else must guess it. */
export function newChannel() {
  const bytes = crypto.getRandomValues(new Uint8Array(16)); // `randomUUID` needs TLS
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const digits = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

/** The panel with the list. */
export class Conversations {
  #words;
  #actions;
  #list;
  #search;
  #note;
  #undo;
  #listed = [];
  #found = { wanted: "", channels: new Set() }; // what the service found in texts
  #searching = 0;
  #deleted = null; // {channel, title, timer, current}: gone from the list, and not yet from the service

  /**
   * @param words the language's `Words`
   * @param actions `{read(search), current(), open(channel), rename(channel, title), remove(channel, last), download(), close()}`;
   *   `read` gives a list or null, the next two tell whether they were done; `open(null)` opens a new conversation
   */
  constructor(words, actions) {
    this.#words = words;
    this.#actions = actions;
    this.#search = element("input", {
      type: "search",
      class: "search",
      autocomplete: "off",
      "data-say-label": "search",
      "data-say-placeholder": "search",
      oninput: () => this.#type(),
    });
    this.#list = element("ul", { class: "list" });
    this.#note = element("p", { class: "nothing", role: "status" });
    this.#undo = element("p", { class: "undo", role: "status" });
    const close = element(
      "button",
      { type: "button", class: "tool", "data-say-label": "closeList", onclick: () => actions.close() },
      icon("close"),
    );
    const save = element(
      "button",
      { type: "button", class: "action save", onclick: () => actions.download() },
      icon("save", "small"),
      element("span", { "data-say": "save" }),
    );
    this.root = element(
      "section",
      { class: "conversations", hidden: true, "data-say-label": "conversations", onkeydown: (event) => this.#key(event) },
      element("header", {}, element("h2", { "data-say": "conversations" }), close),
      this.#search,
      this.#list,
      this.#note,
      this.#undo,
      element("footer", {}, save),
    );
    addEventListener("pagehide", () => this.#commit(true));
  }

  /** Put the cursor into the search, unless that raises a keyboard. */
  focus() {
    const target = matchMedia("(pointer: coarse)").matches ? this.root.querySelector("button") : this.#search;
    target.focus({ preventScroll: true });
  }

  /** Read the list anew. */
  async refresh() {
    const listed = await this.#actions.read();
    if (listed !== null) {
      this.#listed = listed;
    }
    this.#show(listed === null ? "noList" : "noConversations");
  }

  /** Write times and labels in the language in force. */
  speak() {
    this.#words.apply(this.root);
    this.#show();
  }

  get #wanted() {
    return this.#search.value.trim().toLowerCase();
  }

  // Titles are searched at once, and texts by the service as soon as the visitor pauses.
  #type() {
    this.#show();
    clearTimeout(this.#searching);
    const wanted = this.#wanted;
    if (wanted !== "" && wanted !== this.#found.wanted) {
      this.#searching = setTimeout(() => this.#searchTexts(wanted), TYPING_MS);
    }
  }

  async #searchTexts(wanted) {
    const found = await this.#actions.read(wanted);
    if (wanted === this.#wanted) {
      this.#found = { wanted, channels: new Set((found ?? []).map(({ channel }) => channel)) };
      this.#show();
    }
  }

  #show(nothing = "noConversations") {
    const wanted = this.#wanted;
    const searched = wanted === "" || wanted === this.#found.wanted;
    const kept = this.#listed.filter(({ channel }) => channel !== this.#deleted?.channel);
    const found = kept.filter(({ channel, title }) =>
      title.toLowerCase().includes(wanted) || (searched && this.#found.channels.has(channel)));
    this.#list.replaceChildren(...found.map((listed) => this.#row(listed)));
    if (found.length > 0 || !searched) {
      this.#note.replaceChildren();
    } else {
      this.#words.set(this.#note, kept.length > 0 ? "noneFound" : nothing);
    }
  }

  #row({ channel, title, at }) {
    const current = channel === this.#actions.current();
    const open = element(
      "button",
      { type: "button", class: "open", "aria-current": current ? "true" : null, onclick: () => this.#actions.open(channel) },
      element("span", { class: "name" }, title),
      element("time", { datetime: new Date(at).toISOString() }, this.#time(at)),
    );
    const row = element("li", {}, open);
    row.append(
      this.#button("edit", "rename", () => this.#rename(row, open, channel, title)),
      this.#button("trash", "remove", () => this.#remove(channel, title, current)),
    );
    return row;
  }

  #button(picture, label, onclick) {
    const button = element(
      "button",
      { type: "button", class: "tool", "data-say-label": label, onclick },
      icon(picture, "small"),
    );
    return this.#words.apply(button);
  }

  #time(at) {
    const locale = this.#words.language === "zh" ? "zh-CN" : "en-GB";
    const options = Date.now() - at < DAY_MS ? { hour: "2-digit", minute: "2-digit" } : { month: "short", day: "numeric" };
    return new Intl.DateTimeFormat(locale, options).format(at);
  }

  #rename(row, open, channel, title) {
    const input = element("input", { class: "name", "data-say-label": "newTitle", autocomplete: "off" });
    input.value = title;
    let over = false;
    const end = async (save) => {
      if (over) {
        return;
      }
      over = true;
      const renamed = save && input.value.trim() !== "" && input.value.trim() !== title;
      if (renamed && (await this.#actions.rename(channel, input.value.trim()))) {
        await this.refresh();
      } else {
        this.#show();
      }
      [...this.#list.querySelectorAll("li")]
        .find((other) => other.querySelector(".name")?.textContent === (renamed ? input.value.trim() : title))
        ?.querySelector(".open")
        .focus();
    };
    input.addEventListener("keydown", (event) => {
      if (composes(event)) {
        return;
      }
      if (event.key === "Enter") {
        end(true);
      } else if (event.key === "Escape") {
        event.preventDefault();
        event.stopPropagation();
        end(false);
      }
    });
    input.addEventListener("blur", () => end(true));
    open.replaceWith(this.#words.apply(input));
    row.classList.add("renaming");
    input.focus();
    input.select();
  }

  #remove(channel, title, current) {
    this.#commit(false);
    const timer = setTimeout(() => this.#commit(false), UNDO_MS);
    this.#deleted = { channel, title, timer, current };
    const text = element("span");
    this.#words.set(text, "removed");
    const back = element("button", { type: "button", class: "plain", "data-say": "undo", onclick: () => this.#restore() });
    this.#undo.replaceChildren(text, this.#words.apply(back));
    this.#show();
    back.focus();
    if (current) {
      this.#actions.open(null);
    }
  }

  #restore() {
    const { channel, timer, current } = this.#deleted;
    clearTimeout(timer);
    this.#deleted = null;
    this.#undo.replaceChildren();
    if (current) {
      this.#actions.open(channel);
    }
    this.#show();
    this.focus();
  }

  // `last`: the page goes away, and nobody sees the reply.
  async #commit(last) {
    if (this.#deleted === null) {
      return;
    }
    const { channel, timer } = this.#deleted;
    clearTimeout(timer);
    if (this.#undo.contains(this.root.getRootNode().activeElement)) {
      this.focus();
    }
    this.#undo.replaceChildren();
    this.#listed = this.#listed.filter((listed) => listed.channel !== channel);
    this.#deleted = null;
    if (!(await this.#actions.remove(channel, last)) && !last) {
      await this.refresh();
    }
  }

  #key(event) {
    if (event.key === "Escape" && !composes(event)) {
      event.preventDefault(); // the drawer stays open
      event.stopPropagation();
      this.#actions.close();
    }
  }
}
