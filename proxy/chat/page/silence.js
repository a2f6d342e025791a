// Finds out what became of an answer that does not go on: asks the service, with growing pauses.

const FIRST_MS = 1200;
const LONGEST_MS = 15_000;
const UNANSWERED = 2; // questions without a reply, until the stream is opened anew as well

/** Watches for silence while an answer is being written. */
export class SilenceWatch {
  #actions;
  #timer = 0;
  #pause = FIRST_MS;
  #idle = false; // the service said that it writes nothing, and the stream was opened anew since
  #unanswered = 0;

  /**
   * @param actions `{live(), ask(), renew(), lost()}`: whether an answer is believed to be written and the stream is
   *   open; asks the service (true, false, or null for no reply); opens the stream anew; the answer is lost
   */
  constructor(actions) {
    this.#actions = actions;
  }

  /** Something arrived. */
  heard() {
    this.#pause = FIRST_MS;
    this.#idle = false;
    this.#unanswered = 0;
    this.start();
  }

  /** The stream is open, or an answer begins. */
  start() {
    clearTimeout(this.#timer);
    if (this.#actions.live()) {
      this.#timer = setTimeout(() => this.#look(), this.#pause);
    }
  }

  async #look() {
    const timer = this.#timer;
    const busy = await this.#actions.ask();
    if (timer !== this.#timer || !this.#actions.live()) {
      return;
    }
    if (busy === false && this.#idle) {
      this.#actions.lost();
      return;
    }
    this.#unanswered = busy === null ? this.#unanswered + 1 : 0;
    this.#pause = busy === false ? FIRST_MS : Math.min(2 * this.#pause, LONGEST_MS);
    this.#idle = busy === false;
    if (busy === false || this.#unanswered === UNANSWERED) {
      this.#actions.renew(); // the last words may be in a stream that is dead; once it is open, this goes on
    } else {
      this.start();
    }
  }
}
