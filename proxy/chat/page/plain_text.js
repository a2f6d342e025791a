// The text of an answer for the clipboard: close to the Markdown it came from, without the page's own labels.

const FENCE = "```";
const INLINE = {
  br: () => "\n",
  ".tick": (node) => (node.classList.contains("done") ? "[x]" : "[ ]"),
  code: (node) => `\`${node.textContent}\``,
  em: (node) => `*${node.textContent}*`,
  strong: (node) => `**${node.textContent}**`,
  a: (node) => (node.textContent === node.href ? node.href : `[${node.textContent}](${node.href})`),
};

/** What a person who copies `root` wants in the clipboard. */
export function plainText(root) {
  return blocks(root, "").join("\n\n").replace(/\n{3,}/g, "\n\n").trim();
}

function blocks(parent, indent) {
  return [...parent.children].map((node) => block(node, indent)).filter((text) => text.trim() !== "");
}

function block(node, indent) {
  if (node.matches("figure.code")) {
    const pre = node.querySelector("pre");
    return `${FENCE}${pre.dataset.language ?? ""}\n${pre.textContent.replace(/\n$/, "")}\n${FENCE}`;
  }
  if (node.localName === "ul" || node.localName === "ol") {
    return list(node, indent);
  }
  if (node.localName === "table") {
    return table(node);
  }
  if (node.localName === "blockquote") {
    return blocks(node, indent).join("\n\n").replace(/^/gm, "> ");
  }
  if (/^h\d$/.test(node.localName)) {
    return `${"#".repeat(Number(node.className.slice(-1)))} ${line(node)}`;
  }
  return node.localName === "hr" ? "---" : line(node);
}

function list(node, indent) {
  let number = Number(node.getAttribute("start") ?? 1);
  const items = [...node.children].map((item) => {
    const mark = node.localName === "ol" ? `${number++}. ` : "- ";
    const nested = item.querySelectorAll(":scope > ul, :scope > ol");
    const below = [...nested].map((inner) => `\n${list(inner, indent + " ".repeat(mark.length))}`).join("");
    const own = item.cloneNode(true);
    own.querySelectorAll("ul, ol").forEach((inner) => inner.remove());
    return `${indent}${mark}${line(own)}${below}`;
  });
  return items.join("\n");
}

function table(node) {
  const rows = [...node.rows].map((row) => `| ${[...row.cells].map(line).join(" | ")} |`);
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
