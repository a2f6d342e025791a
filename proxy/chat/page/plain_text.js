// The Markdown of an answer, for the clipboard and for files. Rendered again it gives the same answer, and it has none of
// the page's own labels.

const BLOCKS = "p, ul, ol, blockquote, table, figure, div, hr, h1, h2, h3, h4, h5, h6";
const SIGNS = { em: "*", i: "*", strong: "**", b: "**", s: "~~", del: "~~" };
// What may be syntax in any place. A backslash before `[` or `(` would begin a formula, so brackets are closed instead.
const SYNTAX = /([*_])\1*|[`$~]|\\(?=[!-/:-@[-`{-~\n]|$)|\](?=\()|<(?=[a-z/!?])|&(?=#?\w+;)|#{3,}/gi;
const BEFORE_A_MARK = /^(?:\d{1,9}(?=[.)](?:\s|$))|[|: \t]*(?=-[-|: \t]*$)|(?=>|[-+*](?:\s|$)|#{1,2}(?:\s|$)))/gm; // of a block
const PAIRED = [..."*_`$~"]; // one alone is a letter
const HELD = "\0"; // before a paired sign of a text, until all signs of its line are known; HTML cannot contain it
const BRACKETS = { "[": "&#91;", "]": "\\]" };
const NOT_IN_DOLLARS = /[。！？`]|(?:^|[^\\])\$|\\$/;
const ADDRESS = /^(?:[a-z][a-z\d+.-]{1,31}:[^\s<>]*|[\w.+-]+@[\w-]+(?:\.[\w-]+)*)$/i;

/** What a person who copies `root` wants in the clipboard. */
export function plainText(root) {
  const copy = root.cloneNode(true);
  copy.querySelectorAll("wbr").forEach((mark) => mark.remove());
  copy.normalize(); // what was joined, or split for narrow columns, is one text
  return parts(copy).join("\n\n");
}

// Lines of text and blocks mix in the item of a list.
function parts(parent) {
  const found = [];
  let run = [];
  for (const child of [...parent.childNodes, null]) {
    if (child !== null && !isBlock(child)) {
      run.push(child);
      continue;
    }
    found.push(paragraph(run), child === null ? "" : block(child));
    run = [];
  }
  return found.filter((text) => text.trim() !== "");
}

// A formula with `display="block"` may stand within a line all the same.
function isBlock(node) {
  if (!node.matches?.(BLOCKS)) {
    return false;
  }
  const { previousSibling: before, nextSibling: after } = node;
  const ends = (side, feed) => side === null || side.matches?.(BLOCKS) || feed.test(side.data);
  return node.localName !== "div" || (ends(before, /\n$/) && ends(after, /^\n/));
}

function block(node) {
  switch (node.localName) {
    case "ul":
    case "ol":
      return list(node);
    case "table":
      return table(node);
    case "blockquote":
      return parts(node).join("\n\n").replace(/^(?=.)/gm, "> ").replace(/^$/gm, ">");
    case "figure":
      return code(node.querySelector("pre"));
    case "div":
      return inline(node);
    case "hr":
      return node.closest("li") === null ? "---" : "___"; // `- ---` would be one rule
    case "p":
      return paragraph(node.childNodes);
    default:
      return `${"#".repeat(Number(node.className.slice(-1)))} ${line(node.childNodes).replace(/#+$/, "\\$&")}`;
  }
}

function code(pre) {
  const text = pre.textContent;
  const fence = ticks(text, 3);
  return `${fence}${pre.dataset.language ?? ""}\n${text}${/(?:^|\n)$/.test(text) ? "" : "\n"}${fence}`;
}

function list(node) {
  const other = node.previousElementSibling?.localName === node.localName; // another mark begins another list
  // A blank line within an item would make the text of every item a paragraph; without it, a quote joins the next block.
  const gap = [...node.children].some(hasText) ? "\n" : "\n\n";
  let number = Number(node.getAttribute("start") ?? 1);
  const items = [...node.children].map((child) => {
    const mark = node.localName === "ol" ? `${number++}${other ? ")" : "."} ` : other ? "* " : "- ";
    return mark + parts(child).join(gap).replace(/\n(?=[^\n])/g, `\n${" ".repeat(mark.length)}`);
  });
  const spaced = node.querySelector(":scope > li > p:only-child") !== null;
  return items.join(spaced ? "\n\n" : "\n");
}

function hasText(item) {
  return [...item.childNodes].some((child) => !isBlock(child) && child.textContent.trim() !== "");
}

function table(node) {
  const cell = (found) => line(found.childNodes).replace(/\n/g, " ").replaceAll("|", "\\|");
  const side = ({ classList }) => (classList.contains("to-center") ? ":-:" : classList.contains("to-right") ? "--:" : "---");
  const row = (cells) => `| ${cells.join(" | ")} |`;
  const rows = [...node.rows].map(({ cells }) => row([...cells].map(cell)));
  return [rows[0], row([...(node.rows[0]?.cells ?? [])].map(side)), ...rows.slice(1)].join("\n");
}

function paragraph(nodes) {
  return line(nodes).replace(BEFORE_A_MARK, "$&\\");
}

function line(nodes) {
  const text = [...nodes].map(inline).join("").replace(/^[ \t\n]+|[ \t\n]+$/g, "");
  const paired = new Set(PAIRED.filter((sign) => text.indexOf(sign) !== text.lastIndexOf(sign)));
  return text
    .replace(/\0(.)/g, (_, sign) => (paired.has(sign) ? `\\${sign}` : sign))
    .replace(/^\s|\s$/g, (blank) => `&#${blank.charCodeAt(0)};`); // parsers drop blanks of any kind there
}

function inline(node) {
  if (node.nodeType === Node.TEXT_NODE) {
    return escaped(node);
  }
  const name = node.localName;
  if (name === "code") {
    return (node.previousSibling?.localName === "code" ? " " : "") + inlineCode(node.textContent);
  }
  if (name === "math") {
    return formula(node);
  }
  const text = [...node.childNodes].map(inline).join("");
  if (name === "br") {
    return node.nextSibling?.data?.startsWith("\n") ? "" : "\n"; // the line feed behind it is the same break
  }
  if (name === "a") {
    return link(node, text);
  }
  if (name === "sub" || name === "sup") {
    return `<${name}>${text}</${name}>`;
  }
  if (node.matches(".tick")) {
    return (node.classList.contains("done") ? "[x]" : "[ ]") + (node.nextSibling?.data?.startsWith(" ") ? "" : " ");
  }
  return Object.hasOwn(SIGNS, name) ? emphasised(node, text) : text;
}

function escaped(node) {
  const { parentElement, previousSibling, nextSibling } = node;
  const data = node.data.replace(previousSibling?.localName === "br" ? /(?!^)\n/g : /\n/g, " "); // only a break is one
  const text = data.replace(SYNTAX, (signs, run, at) => {
    if (run === undefined) {
      return PAIRED.includes(signs) ? HELD + signs : signs.replace(/./gs, "\\$&");
    }
    const beside = [data[at - 1] ?? "", data[at + signs.length] ?? ""];
    const free = [/\s/, ...(run === "_" ? [/[a-z\d]/i] : [])].some((kind) => beside.every((letter) => kind.test(letter)));
    return free ? signs : signs.replace(/./g, `${HELD}$&`);
  });
  const label = parentElement?.closest("a") ?? null;
  const open = label !== null && !balanced(label.textContent);
  const bracketed = open ? text.replace(/\\?[[\]]/g, (mark) => BRACKETS[mark] ?? mark) : text;
  return nextSibling?.localName === "a" ? bracketed.replace(/!$/, "\\!") : bracketed; // no image
}

function balanced(text) {
  let depth = 0;
  for (const letter of text) {
    depth += letter === "[" ? 1 : letter === "]" ? -1 : 0;
    if (depth < 0) {
      return false;
    }
  }
  return depth === 0;
}

// Blanks are outside of the signs, which otherwise would be letters.
function emphasised(node, text) {
  const words = text.trim();
  const sign = node.matches("em em") && !node.matches("em em em") ? "_" : SIGNS[node.localName];
  return words === "" ? text : text.replace(words, () => sign + words + sign);
}

function link(node, text) {
  const address = node.textContent;
  if (ADDRESS.test(address) && [address, `${address}/`, `mailto:${address}`].includes(node.href)) {
    return `<${address}>`;
  }
  const target = node.href.replace(/[<>]/g, encodeURIComponent).replace(/\\|&(?=#?\w+;)/g, "\\$&");
  return `[${text}](${/[()\s]/.test(target) ? `<${target}>` : target})`;
}

// The source of a formula is next to its MathML; without it, its letters remain.
function formula(math) {
  const { tex } = math.dataset;
  if (tex === undefined) {
    return math.textContent;
  }
  if (math.getAttribute("display") === "block") {
    return tex.includes("$$") ? `\\[${tex}\\]` : `$$${tex}$$`;
  }
  const { previousSibling, nextSibling } = math.closest(".formula") ?? math;
  const price = /\d$/.test(previousSibling?.textContent) || /^\d/.test(nextSibling?.textContent);
  return price || NOT_IN_DOLLARS.test(tex) ? `\\(${tex}\\)` : `$${tex}$`;
}

function inlineCode(text) {
  const mark = ticks(text, 1);
  const space = /^`|`$|^ .*[^ ].* $/s.test(text) ? " " : "";
  return mark + space + text.replace(/\n/g, " ") + space + mark;
}

// A run of backticks that is longer than any in the code, or at least of this length.
function ticks(code, least) {
  const longest = Math.max(0, ...(code.match(/`+/g) ?? []).map((run) => run.length));
  return "`".repeat(longest < least ? least : longest + 1);
}
