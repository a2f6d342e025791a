// Keeps the end of a growing text in sight, and lets go as soon as the reader scrolls away.

const NEAR_PX = 8;
const QUIET_FRAMES = 30; // without a scroll, for a glide to count as ended
const AWAY_KEYS = new Set(["ArrowUp", "PageUp", "Home"]);

/** Follows the end of `scroller`. Writes of our own are told by the position they led to, not by a timer. */
export class Follow {
  #scroller;
  #blank;
  #changed;
  #expected = 0;
  #held = false;
  #settling = 0; // frames; a glide that was under way goes on for some, and is nobody's wish any more

  /**
   * @param scroller the element that scrolls
   * @param content the element inside that grows
   * @param blank tells whether nothing was said yet: the greeting is read from its beginning
   * @param changed called when following begins or ends, or when there is more below
   */
  constructor(scroller, content, blank, changed) {
    this.#scroller = scroller;
    this.#blank = blank;
    this.#changed = changed;
    this.following = true;
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    scroller.addEventListener("wheel", (event) => event.deltaY < 0 && this.#leave(), { passive: true });
    scroller.addEventListener("keydown", (event) => AWAY_KEYS.has(event.key) && this.#leave());
    for (const name of ["touchstart", "pointerdown"]) {
      scroller.addEventListener(name, () => this.#hold(), { passive: true });
    }
    for (const name of ["touchend", "touchcancel", "pointerup", "pointercancel"]) {
      addEventListener(name, () => this.#release(), { passive: true });
    }
    const grown = new ResizeObserver(() => this.#grown());
    grown.observe(content);
    grown.observe(scroller);
  }

  /** Go to the end and stay there. */
  attach() {
    this.following = true;
    if (this.#blank()) {
      this.#scroller.scrollTop = this.#expected = 0;
    }
    this.#write();
    this.#changed();
    if (this.#settling === 0) {
      this.#settling = QUIET_FRAMES;
      this.#settle();
    }
  }

  #atEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    return scrollHeight - scrollTop - clientHeight <= NEAR_PX;
  }

  #settle() {
    requestAnimationFrame(() => {
      if (this.#settling > 0) {
        this.#settling -= 1;
        this.#settle();
      }
    });
  }

  #hold() {
    this.#held = true;
    this.#settling = 0;
  }

  #leave() {
    this.#settling = 0;
    if (this.#scroller.scrollTop > 0) {
      this.#turn(false);
    }
  }

  #release() {
    this.#held = false;
    if (this.following) {
      this.#write();
    }
  }

  #scrolled() {
    if (this.#blank()) {
      return;
    }
    const top = this.#scroller.scrollTop;
    const ours = Math.abs(top - this.#expected) <= 1;
    const up = top < this.#expected;
    this.#expected = top;
    if (this.#atEnd()) {
      if (!up) {
        this.#turn(true); // upwards, these are the first pixels of leaving, or a text that shrank
      }
    } else if (this.#settling > 0) {
      this.#settling = QUIET_FRAMES;
      this.#write();
    } else if (!ours && up) {
      this.#turn(false);
    }
  }

  #grown() {
    if (this.following && !this.#held) {
      this.#write();
    }
    this.#changed();
  }

  #write() {
    if (this.#blank()) {
      return;
    }
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#expected = this.#scroller.scrollTop;
  }

  #turn(following) {
    if (this.following !== following && !this.#blank()) {
      this.following = following;
      this.#changed();
    }
  }
}
