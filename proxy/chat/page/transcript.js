// The conversation: takes a channel's events in order and keeps the turns.
import { Turn } from "./turn.js";
import { readBlocks } from "./safe_html.js";

const TURN_STATES = ["waiting", "thinking", "answering", "done", "stopped", "failed"];

/** All turns of a channel, in an element that is a log to screen readers. */
export class Transcript {
  #parts;
  #turns = [];

  /**
   * @param root the element of role "log"
   * @param parts as a `Turn` takes them
   */
  constructor(root, parts) {
    this.root = root;
    this.#parts = parts;
  }

  /** Whether nothing was said yet. */
  get empty() {
    return this.#turns.length === 0;
  }

  /** The state of the turn that is being answered, or null. */
  get live() {
    const last = this.#turns.at(-1);
    return last?.live ? last.state : null;
  }

  /**
   * Take a message.
   * @param said `{html, reason, number, source, id}`: HTML of any trust, what an error is about, the conversation
   *   that a question was edited in, and the id of the event
   * @param past whether it was said before this page was opened
   */
  message({ html, reason, number, source, id }, past) {
    for (const { kind, nodes } of readBlocks(html)) {
      if (kind === "right") {
        this.#begin().ask(nodes, id, source);
        continue;
      }
      const turn = this.#turns.at(-1) ?? this.#begin();
      if (kind === "describe") {
        turn.think(nodes);
      } else if (kind === "left") {
        turn.write(nodes);
      } else {
        turn.fail({ reason, number, words: nodes.textContent }, !past);
      }
    }
    this.#settle();
  }

  /** Take a change of state; see `Turn.enter`. Unknown ones are left alone. */
  state(state, at, details) {
    if (state === "reset") {
      this.clear();
    } else if (state === "regenerating") {
      this.#turns.at(-1)?.restart();
    } else if (TURN_STATES.includes(state)) {
      this.#turns.at(-1)?.enter(state, at, details);
    }
    this.#settle();
  }

  /** The first question, in one line. */
  get title() {
    return (this.#turns[0]?.question ?? "").replace(/\s+/g, " ").trim();
  }

  /** The whole conversation. */
  get markdown() {
    return `${this.#turns.map((turn) => turn.markdown).join("\n\n")}\n`;
  }

  /** The service no longer works on the last turn, and nobody said how it ended. */
  breakOff() {
    const turn = this.#turns.at(-1);
    turn.fail({ reason: "interrupted" }, true);
    turn.enter("failed", Date.now());
    this.#settle();
  }

  /** The visitor waits no longer for the last turn. */
  leave() {
    this.#turns.at(-1).enter("stopped", Date.now());
    this.#settle();
  }

  /** Forget everything. */
  clear() {
    for (const turn of this.#turns) {
      turn.dispose();
      turn.root.remove();
    }
    this.#turns = [];
  }

  #begin() {
    const turn = new Turn(this.#parts);
    this.#turns.push(turn);
    this.root.append(turn.root);
    return turn;
  }

  #settle() {
    const last = this.#turns.at(-1);
    this.#turns.at(-2)?.settle(false);
    last?.settle(true);
    this.root.setAttribute("aria-busy", String(this.live !== null));
  }
}
