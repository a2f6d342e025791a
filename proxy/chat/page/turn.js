// One turn: a question, the reasoning, the answer and how it ended, as elements of the conversation.
import { element, icon } from "./dom.js";
import { plainText } from "./plain_text.js";
import { Prose } from "./prose.js";
import { QuestionEditor } from "./question_editor.js";

const TICK_MS = 1000;

/** A turn's elements and its state: "waiting", "thinking", "answering", "done", "stopped", "failed", or null (not told). */
export class Turn {
  #parts;
  #details = null;
  #summary = null;
  #pending = null;
  #ending = null;
  #reasoning = null;
  #answer = null;
  #failures = [];
  #touched = false; // the reader folded or unfolded the reasoning himself
  #ticking = 0;
  #thinkingSince = null;

  /**
   * @param parts `{words, copy, retry, edit(text, before), open(channel), reading}`: the last tells whether the reader is
   *   away from the end, `edit` whether the question was taken
   */
  constructor(parts) {
    this.#parts = parts;
    this.state = null;
    this.root = element("section", { class: "turn" });
    this.root.append(this.#headline("answer"));
  }

  /** Whether an answer is still coming. */
  get live() {
    return this.state === "waiting" || this.state === "thinking" || this.state === "answering";
  }

  /** The text of the question, also while it is hidden. */
  get question() {
    const question = this.root.querySelector(".question")?.cloneNode(true);
    question?.querySelectorAll("br").forEach((mark) => mark.replaceWith("\n"));
    return question?.textContent ?? "";
  }

  /** Question and answer, each under a heading. */
  get markdown() {
    const { words } = this.#parts;
    const parts = [`## ${words.say("you")}`, this.question.trim()];
    if (this.#answer !== null) {
      parts.push(`## ${words.say("answer")}`, plainText(this.#answer.root));
    }
    return parts.filter((part) => part !== "").join("\n\n");
  }

  /**
   * Show what was asked.
   * @param nodes the question
   * @param id of its event; null if it cannot be edited
   * @param source the conversation in which it was edited, or null
   */
  ask(nodes, id, source) {
    const question = element("div", { class: "question" }, nodes);
    for (const mark of question.querySelectorAll("br")) {
      if (mark.nextSibling?.nodeType === Node.TEXT_NODE) {
        mark.nextSibling.data = mark.nextSibling.data.replace(/^\n/, ""); // one break, told twice
      }
    }
    this.root.prepend(this.#headline("you"), question, this.#questionActions(question, id));
    if (source !== null) {
      this.root.prepend(this.#origin(source));
    }
  }

  /** Append reasoning. */
  think(nodes) {
    if (this.#reasoning === null) {
      this.#openReasoning();
    }
    this.#reasoning.append(nodes);
    this.#mark();
  }

  /** Append a piece of the answer. */
  write(nodes) {
    if (this.#answer === null) {
      this.#fold();
      this.#answer = new Prose(this.#parts.words, this.#parts.copy, "answer");
      this.root.insertBefore(this.#answer.root, this.#failures[0] ?? this.#ending);
    }
    this.#answer.append(nodes);
    this.#mark();
  }

  /**
   * Show a failure.
   * @param cause `{reason, number, words}`, as `Words.explain` takes it
   * @param alert whether it is said aloud at once
   */
  fail(cause, alert) {
    const { words, retry } = this.#parts;
    const explained = element("p", { class: "cause" });
    words.explain(explained, cause);
    const block = element(
      "div",
      { class: "failure", role: alert ? "alert" : null },
      icon("alert"),
      element("p", { class: "headline", "data-say": "failed" }),
      explained,
      element("button", { type: "button", class: "plain remedy", "data-say": "retry", onclick: retry }),
    );
    this.#failures.push(block);
    this.root.insertBefore(words.apply(block), this.#ending);
    this.#mark();
  }

  /**
   * Go into a state.
   * @param state one of the states above
   * @param at when that was, in milliseconds of this machine's clock
   * @param details `{seconds, model}`: how long it took and which model answered, at the end; null if not told
   */
  enter(state, at, { seconds = null, model = null } = {}) {
    if (this.state === "thinking" && state !== "thinking") {
      this.#stopThinking(at);
    }
    this.state = state;
    if (state === "thinking" && this.#thinkingSince === null) {
      this.#thinkingSince = at;
      this.#openReasoning();
    }
    if (state === "answering") {
      this.#fold();
    }
    if (!this.live) {
      this.#end(at, seconds, model);
    }
    this.#mark();
  }

  /** Drop whatever came after the question: it will be answered again. */
  restart() {
    clearInterval(this.#ticking);
    for (const part of [this.#details, this.#answer?.root, this.#ending, this.#pending, ...this.#failures]) {
      part?.remove();
    }
    this.#details = this.#summary = this.#reasoning = this.#answer = this.#ending = this.#pending = null;
    this.#failures = [];
    this.#touched = false;
    this.#thinkingSince = null;
    this.state = "waiting";
    this.#mark();
  }

  /** Only the last turn can be answered again. */
  settle(last) {
    const remedies = this.#failures.map((failure) => failure.querySelector(".remedy"));
    for (const button of [...remedies, this.#ending?.querySelector(".retry") ?? null]) {
      button?.toggleAttribute("hidden", !last || this.live);
    }
  }

  /** Stop the clock of a turn that leaves the page. */
  dispose() {
    clearInterval(this.#ticking);
  }

  #headline(key) {
    return this.#parts.words.apply(element("h2", { class: "sr-only", "data-say": key }));
  }

  #openReasoning() {
    if (this.#details !== null) {
      return;
    }
    const { words, copy } = this.#parts;
    this.#reasoning = new Prose(words, copy, "thought");
    this.#summary = element("summary", { onclick: () => (this.#touched = true) });
    // A region of its own that says nothing: reasoning is for who opens it, not to be read aloud as it comes.
    this.#details = element("details", { class: "reasoning", open: true, "aria-live": "off" }, this.#summary);
    this.#details.append(this.#reasoning.root);
    this.root.insertBefore(this.#details, this.#answer?.root ?? this.#failures[0] ?? this.#ending);
    if (this.#thinkingSince === null) {
      words.set(this.#summary, "reasoning");
      return;
    }
    this.#tick();
    this.#ticking = setInterval(() => this.#tick(), TICK_MS);
  }

  #tick() {
    const seconds = Math.max(0, Math.floor((Date.now() - this.#thinkingSince) / 1000));
    this.#parts.words.set(this.#summary, "thinking", seconds);
  }

  #stopThinking(at) {
    clearInterval(this.#ticking);
    const seconds = Math.max(1, Math.round((at - this.#thinkingSince) / 1000));
    this.#parts.words.set(this.#summary, "thought", seconds);
  }

  // Folding takes away what stands on the screen: never from a reader who touched it, or who is reading further up.
  #fold() {
    if (this.#details !== null && !this.#touched && !this.#parts.reading()) {
      this.#details.open = false;
    }
  }

  #mark() {
    this.#reasoning?.root.classList.toggle("writing", this.state === "thinking");
    this.#answer?.root.classList.toggle("writing", this.state === "answering");
    const bare = this.live && this.#details === null && this.#answer === null;
    if (bare && this.#pending === null) {
      this.#pending = this.#parts.words.apply(element("p", { class: "pending", "data-say": "waiting" }));
      this.root.append(this.#pending);
    } else if (!bare) {
      this.#pending?.remove();
      this.#pending = null;
    }
  }

  #end(at, seconds, model) {
    const { words, copy, retry } = this.#parts;
    this.#ending?.remove();
    this.#ending = element("div", { class: "ending" });
    if (this.state === "stopped") {
      this.#ending.append(element("p", { class: "note", "data-say": "stopped" }));
    }
    if (this.#answer !== null) {
      const answer = this.#action("copy", "copyAnswer", () => copy(plainText(this.#answer.root), answer));
      const both = this.#action("copy", "copyBoth", () => copy(this.markdown, both));
      this.#ending.append(answer, both);
    }
    if (this.#failures.length === 0) {
      const button = this.#action("again", "again", retry);
      button.classList.add("retry");
      this.#ending.append(button);
    }
    const facts = element("p", { class: "note facts" });
    if (this.state === "done" && seconds !== null) {
      const took = Math.max(1, Math.round(seconds));
      facts.append(element("span", { class: "took", "data-say": "took", "data-say-n": took }));
    }
    if (model !== null) {
      facts.append(element("span", {}, model));
    }
    const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hour12: false });
    facts.append(element("span", {}, clock.format(at)));
    this.#ending.append(facts);
    this.root.append(words.apply(this.#ending));
  }

  #questionActions(question, id) {
    const { copy, words } = this.#parts;
    const copying = this.#action("copy", "copyQuestion", () => copy(this.question.trim(), copying));
    const actions = element("div", { class: "asked" }, copying);
    if (id !== null) {
      actions.prepend(this.#action("edit", "edit", () => this.#edit(question, actions, id)));
    }
    return words.apply(actions);
  }

  #edit(question, actions, id) {
    const { edit, words } = this.#parts;
    const editor = new QuestionEditor(words, this.question.trim(), {
      save: (text) => edit(text, id),
      cancel: () => {
        editor.root.remove();
        question.hidden = actions.hidden = false;
        actions.querySelector("button").focus();
      },
    });
    question.hidden = actions.hidden = true;
    question.before(editor.root);
    editor.focus();
  }

  #origin(source) {
    const { open, words } = this.#parts;
    return words.apply(element(
      "p",
      { class: "origin" },
      element("span", { "data-say": "branched" }),
      element("button", { type: "button", class: "action", "data-say": "openSource", onclick: () => open(source) }),
    ));
  }

  #action(picture, key, onclick) {
    return element(
      "button",
      { type: "button", class: "action", onclick },
      icon(picture, "small"),
      element("span", { "data-say": key }),
    );
  }
}
