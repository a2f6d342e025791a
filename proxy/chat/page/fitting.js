// Keeps an answer inside its column: nothing scrolls sideways but code and formulas.
import { element } from "./dom.js";

const SHORT_UNITS = 8; // a Latin letter is one unit and a Chinese character two; shorter cells stay on one line
const WIDE_LETTER = /[^\u0000-\u02ff]/g;
const LONG_WORD = /\S{13,}/;
const JOINTS = /([/_:=&?@]+)/; // a long name or address may break after these, and after a hyphen anyway

/** Prepare a table for narrow columns: a label for each cell, and where its words may break. */
export function prepareTable(table) {
  const heads = [...(table.tHead?.rows[0]?.cells ?? [])].map((cell) => cell.textContent);
  for (const cell of [...table.rows].flatMap((row) => [...row.cells])) {
    const units = cell.textContent.replace(WIDE_LETTER, "xx").length;
    cell.classList.add(units > SHORT_UNITS ? "long" : "short");
    if (cell.localName === "td") {
      cell.dataset.label = heads[cell.cellIndex] ?? "";
    }
    allowBreaks(cell);
  }
}

function allowBreaks(cell) {
  const texts = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
  const found = [];
  while (texts.nextNode()) {
    if (LONG_WORD.test(texts.currentNode.data) && texts.currentNode.parentElement.closest("math") === null) {
      found.push(texts.currentNode);
    }
  }
  for (const text of found) {
    const pieces = text.data.split(JOINTS); // the joints are at the odd places
    text.replaceWith(...pieces.flatMap((piece, place) => (place % 2 === 1 ? [piece, element("wbr")] : [piece])));
  }
}

/**
 * Fit what may be wider than the column. Tables shrink first, and then show a card for each row; a formula within a line
 * gets a line that scrolls. What scrolls can be reached by keyboard, and nothing else stops the Tab key.
 * @param root the text
 * @param words the language's `Words`
 */
export function fit(root, words) {
  const edge = root.getBoundingClientRect().right + 1; // a pixel for rounding
  const overflows = (node) => node.getBoundingClientRect().right > edge;
  fitTables(root, overflows);
  const wide = [...root.querySelectorAll('math:not([display="block"])')].filter(overflows);
  for (const math of wide.filter((found) => found.closest(".formula") === null)) {
    const formula = words.apply(element("span", { class: "formula", role: "group", "data-say-label": "formula" }));
    math.replaceWith(formula);
    formula.append(math);
  }
  const scrollers = [...root.querySelectorAll("pre, .formula")];
  const reachable = new Set(scrollers.filter((node) => node.scrollWidth > node.clientWidth));
  for (const node of scrollers.filter((found) => found.hasAttribute("tabindex") !== reachable.has(found))) {
    if (reachable.has(node)) {
      node.tabIndex = 0;
    } else {
      node.removeAttribute("tabindex");
    }
  }
}

function fitTables(root, overflows) {
  let wide = [...root.querySelectorAll("table")];
  if (wide.length === 0) {
    return;
  }
  root.style.minHeight = `${root.offsetHeight}px`; // what is tried out moves no reader
  for (const table of wide) {
    table.classList.remove("tight", "cards");
  }
  for (const shape of ["tight", "cards"]) {
    wide = wide.filter(overflows); // one layout for all
    for (const table of wide) {
      table.classList.add(shape);
    }
  }
  root.style.minHeight = "";
}
