// Puts safe blocks into a growing text: joins what was cut in the middle, and dresses code, formulas and headings.
import { element, icon, loadMathFont } from "./dom.js";
import { fit, prepareTable } from "./fitting.js";

/** One growing text: an answer, or its reasoning. */
export class Prose {
  #words;
  #copy;
  #fitAgain = null;
  #openEnded = false; // whether the last paragraph's line goes on
  #ranks = []; // headings that are open, outermost first

  /**
   * @param words the language's `Words`
   * @param copy called with a text and the button that was pressed
   */
  constructor(words, copy, className = "") {
    this.#words = words;
    this.#copy = copy;
    this.root = element("div", { class: `prose ${className}`.trim() });
  }

  /** Whether nothing was written yet. */
  get empty() {
    return !this.root.hasChildNodes();
  }

  /** Append the blocks of one piece. */
  append(nodes) {
    if (nodes.querySelector("math") !== null) {
      void loadMathFont(this.root).then(() => fit(this.root, this.#words));
    }
    this.#dress(nodes);
    this.#words.apply(nodes);
    const last = this.root.lastElementChild;
    const first = nodes.firstElementChild;
    const end = nodes.lastElementChild;
    const ended = end !== null && this.#endLine(end);
    if (last !== null && first !== null && this.#continues(last, first)) {
      last.append(...first.childNodes);
      first.remove();
    }
    this.#openEnded = !ended;
    if (end?.localName === "p" && !end.hasChildNodes()) {
      end.remove();
    }
    const wide = nodes.querySelector("table, math, pre") !== null;
    this.root.append(nodes);
    if (wide) {
      fit(this.root, this.#words);
      this.#fitAgain ??= this.#watchWidth();
    }
  }

  #watchWidth() {
    let width = this.root.clientWidth;
    const observer = new ResizeObserver(() => {
      if (this.root.clientWidth !== width) {
        width = this.root.clientWidth;
        fit(this.root, this.#words);
      }
    });
    observer.observe(this.root);
    return observer;
  }

  // The line feed that ends a paragraph is a sign to us, and on the page a stray blank.
  #endLine(block) {
    const ended = block.textContent.endsWith("\n");
    if (block.localName === "p" && block.lastChild?.nodeType === Node.TEXT_NODE) {
      block.lastChild.data = block.lastChild.data.replace(/\n+$/, "");
      block.normalize(); // an empty text is none
    }
    return ended;
  }

  #continues(last, first) {
    if (last.localName !== first.localName) {
      return false;
    }
    if (last.localName === "p") {
      return this.#openEnded; // the line went on when the piece was cut
    }
    if (last.localName === "ol") {
      return Number(first.getAttribute("start") ?? 1) === Number(last.getAttribute("start") ?? 1) + last.childElementCount;
    }
    return last.localName === "ul" && last.className === first.className;
  }

  #dress(nodes) {
    for (const pre of nodes.querySelectorAll("pre")) {
      this.#frameCode(pre);
    }
    for (const table of nodes.querySelectorAll("table")) {
      prepareTable(table);
    }
    for (const math of nodes.querySelectorAll('math[display="block"]')) {
      const formula = element("div", { class: "formula", role: "group", "data-say-label": "formula" });
      const parent = math.parentElement;
      if (parent?.localName === "p" && parent.textContent.trim() === math.textContent.trim()) {
        parent.replaceWith(formula);
      } else {
        math.replaceWith(formula);
      }
      formula.append(math);
    }
    for (const heading of nodes.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
      heading.replaceWith(this.#heading(heading));
    }
  }

  #frameCode(pre) {
    const text = pre.textContent.replace(/\n$/, "");
    const label = element("span", { class: "language" });
    if (pre.dataset.language) {
      label.textContent = pre.dataset.language;
    } else {
      label.dataset.say = "code";
    }
    const button = element(
      "button",
      { type: "button", class: "action", onclick: () => this.#copy(text, button) },
      icon("copy", "small"),
      element("span", { "data-say": "copyCode" }),
    );
    const figure = element("figure", { class: "code" }, element("figcaption", {}, label, button));
    pre.replaceWith(figure);
    pre.setAttribute("role", "group");
    pre.dataset.sayLabel = "code";
    figure.append(pre);
  }

  // A model starts with any rank; the page's outline goes on below its own headings without a gap.
  #heading(heading) {
    const rank = Number(heading.localName[1]);
    while (this.#ranks.length > 0 && this.#ranks.at(-1) >= rank) {
      this.#ranks.pop();
    }
    this.#ranks.push(rank);
    const level = Math.min(6, 2 + this.#ranks.length);
    return element(`h${level}`, { class: `rank-${rank}` }, ...heading.childNodes);
  }
}
