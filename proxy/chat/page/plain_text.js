// The text of an answer for the clipboard: close to the Markdown it came from, without the page's own labels.
import { element } from "./dom.js";

const BLOCKS = "p, ul, ol, blockquote, table, figure, div, hr, h1, h2, h3, h4, h5, h6";
const INLINE = {
  br: (node) => (node.nextSibling?.data?.startsWith("\n") ? "" : "\n"), // the line feed behind it is the same break
  ".tick": (node) => (node.classList.contains("done") ? "[x]" : "[ ]"),
  code: (node) => inlineCode(node.textContent),
  em: (node) => `*${node.textContent}*`,
  strong: (node) => `**${node.textContent}**`,
  a: (node) => (node.textContent === node.href ? node.href : `[${node.textContent}](${node.href})`),
};

/** What a person who copies `root` wants in the clipboard. */
export function plainText(root) {
  return blocks(root).join("\n\n").trim();
}

function blocks(parent) {
  return [...parent.children].map(block).filter((text) => text.trim() !== "");
}

function block(node) {
  if (node.matches("figure.code")) {
    const pre = node.querySelector("pre");
    const fence = ticks(pre.textContent, 3);
    return `${fence}${pre.dataset.language ?? ""}\n${pre.textContent.replace(/\n$/, "")}\n${fence}`;
  }
  if (node.localName === "ul" || node.localName === "ol") {
    return list(node);
  }
  if (node.localName === "table") {
    return table(node);
  }
  if (node.localName === "blockquote") {
    return blocks(node).join("\n\n").replace(/^/gm, "> ");
  }
  if (/^h\d$/.test(node.localName)) {
    return `${"#".repeat(Number(node.className.slice(-1)))} ${line(node)}`;
  }
  return node.localName === "hr" ? "---" : line(node);
}

function list(node) {
  let number = Number(node.getAttribute("start") ?? 1);
  const items = [...node.children].map((child) => {
    const mark = node.localName === "ol" ? `${number++}. ` : "- ";
    return mark + item(child).replace(/\n(?=[^\n])/g, `\n${" ".repeat(mark.length)}`);
  });
  return items.join("\n");
}

// Lines of text and blocks mix in the item of a list.
function item(node) {
  const parts = [];
  let text = null;
  for (const child of node.childNodes) {
    if (child.nodeType === Node.ELEMENT_NODE && child.matches(BLOCKS)) {
      text = null;
      parts.push(block(child));
    } else {
      if (text === null) {
        text = element("span");
        parts.push(text);
      }
      text.append(child.cloneNode(true));
    }
  }
  const texts = parts.map((part) => (typeof part === "string" ? part : line(part))).filter((part) => part.trim() !== "");
  return texts.join(node.querySelector(":scope > p") === null ? "\n" : "\n\n");
}

function table(node) {
  const cell = (found) => line(found).replaceAll("|", "\\|");
  const rows = [...node.rows].map((row) => `| ${[...row.cells].map(cell).join(" | ")} |`);
  const rule = `|${" --- |".repeat(node.rows[0]?.cells.length ?? 0)}`;
  return [rows[0], rule, ...rows.slice(1)].join("\n");
}

function line(node) {
  const copy = node.cloneNode(true);
  for (const [name, write] of Object.entries(INLINE)) {
    copy.querySelectorAll(name).forEach((inner) => inner.replaceWith(write(inner)));
  }
  return copy.textContent.trim();
}

function inlineCode(text) {
  const mark = ticks(text, 1);
  const space = text.startsWith("`") || text.endsWith("`") ? " " : "";
  return mark + space + text + space + mark;
}

// A run of backticks that is longer than any in the code, or at least of this length.
function ticks(code, least) {
  const longest = Math.max(0, ...(code.match(/`+/g) ?? []).map((run) => run.length));
  return "`".repeat(longest < least ? least : longest + 1);
}
