// Does much work in slices, so that the page answers to clicks and keys in between.

const SLICE_MS = 24;

/** Work in order: at once if there is little of it, and the rest in later tasks. */
export class Slices {
  #waiting = [];
  #until = 0;
  #scheduled = false;
  #channel = new MessageChannel(); // a timer would wait longer, above all in a tab that nobody sees

  constructor() {
    this.#channel.port1.onmessage = () => this.#slice();
  }

  /** Do this, after all that was given before. */
  add(work) {
    if (!this.#scheduled) {
      this.#until = performance.now() + SLICE_MS;
      this.#schedule();
    }
    if (this.#waiting.length === 0 && performance.now() <= this.#until) {
      work();
    } else {
      this.#waiting.push(work);
    }
  }

  /** Drop what is not done yet. */
  clear() {
    this.#waiting = [];
  }

  #schedule() {
    this.#scheduled = true;
    this.#channel.port2.postMessage(null);
  }

  #slice() {
    this.#scheduled = false;
    const until = performance.now() + SLICE_MS;
    let done = 0;
    while (done < this.#waiting.length && (done === 0 || performance.now() <= until)) {
      try {
        this.#waiting[done]();
      } catch (error) {
        reportError(error); // the work behind it still runs, and none of it twice
      }
      done += 1;
    }
    this.#waiting.splice(0, done);
    if (this.#waiting.length > 0) {
      this.#schedule();
    }
  }
}
