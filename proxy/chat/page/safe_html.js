// Turns a message's HTML into nodes that cannot act: parsed apart, then rebuilt name by name from an allow-list.
//
// The server has cleaned it already; this is the second wall, for what a foreign publisher may send. `DOMParser` gives a
// document without scripts, loads and events; nothing of it moves over, only new elements with the attributes named here.
// The lists mirror the server's renderer. Images are on neither: their addresses would carry words to a stranger.
import { element } from "./dom.js";

const HTML = "http://www.w3.org/1999/xhtml";
const MATHML = "http://www.w3.org/1998/Math/MathML";

const PLAIN = new Set(
  "p br hr strong em b i del s sub sup ul ol li blockquote pre code span table thead tbody tr th td a h1 h2 h3 h4 h5 h6".split(" "),
);
const BLOCKS = new Set("p hr ul ol blockquote pre table h1 h2 h3 h4 h5 h6 figure div".split(" "));
const DROPPED = new Set(
  "script style template iframe frame frameset object embed noscript noframes noembed svg title head link meta base textarea select button form xmp plaintext canvas audio video".split(" "),
);
const MATH = new Set(
  ("math mrow mi mn mo ms mtext mspace mfrac msqrt mroot mstyle mpadded mphantom menclose msub msup msubsup "
    + "munder mover munderover mmultiscripts mprescripts none mtable mtr mtd").split(" "),
);
const MATH_ATTRIBUTES = new Set(
  ("display displaystyle scriptlevel mathvariant stretchy fence separator form accent accentunder movablelimits largeop symmetric "
    + "linethickness columnalign rowalign columnspacing rowspacing columnlines rowlines width height depth lspace rspace minsize "
    + "maxsize voffset notation").split(" "),
);
const MATH_VALUE = /^[\w .,;:%()[\]{}|<>=+*/-]{0,64}$/;
const TEX_CHARS_MAX = 2000;
const MATH_STYLES = new Map(Object.entries({
  "background": /^(?:(?:, )?linear-gradient\(to top (?:left|right), transparent 47%, currentcolor 47% 53%, transparent 53%\)){1,2}$/,
  "border": /^0\.0\dem (?:solid|dashed)(?: currentcolor)?$/,
  "color": /^#[0-9A-Fa-f]{6}$/,
  "font-style": /^italic$/,
  "font-weight": /^bold$/,
  "justify-items": /^(?:start|end)$/,
  "margin": /^-?[0-2]?(?:\.\d{1,9})?(?:em)?$/,
  "padding": /^[0-2]?(?:\.\d{1,9})?(?:em)?$/,
  "text-align": /^(?:left|right)$/,
  "width": /^\d{1,3}%$/,
}));
const MATH_STYLE = /(<m[a-z]+(?: [a-z-]+="[^"<>]*")*) style="/g;
const SIDE = /-(?:left|right|top|bottom)$/;
const LANGUAGE = /^language-([\w+#.-]{1,30})$/;
const TOKEN = /^[a-z][a-z0-9]{0,2}$/; // Pygments' short classes; all classes of our own are longer
const ALIGNED = /\b(center|right)\b/;
const LINKS = new Set(["http:", "https:", "mailto:"]);
const KINDS = ["right", "describe", "left", "error"];

/**
 * Read the blocks of a message.
 * @param html what stood in `message`
 * @returns a list of `{kind, nodes}`: kind as the class of the article's divs ("left" for anything outside of one), nodes
 *   a fragment of safe nodes, blocks at its top, ready to be put into the page
 */
export function readBlocks(html) {
  // The page's policy also forbids style attributes in a parsed document, and would report each of them.
  const parsed = new DOMParser().parseFromString(html.replace(MATH_STYLE, '$1 data-style="'), "text/html");
  const blocks = [];
  for (const node of [...parsed.body.childNodes]) {
    const kind = node.localName === "div" ? KINDS.find((name) => node.classList.contains(name)) : undefined;
    if (kind !== undefined) {
      blocks.push({ kind, nodes: clean(node) });
    } else if (node.nodeType !== Node.TEXT_NODE || node.data.trim() !== "") {
      const holder = parsed.createElement("div");
      holder.append(node);
      blocks.push({ kind: "left", nodes: clean(holder) });
    }
  }
  return blocks.filter((block) => block.nodes.hasChildNodes());
}

function clean(parent) {
  const safe = document.createDocumentFragment();
  let line = null; // gathers text and inline elements that stand outside of a block
  for (const node of rebuildAll(parent)) {
    if (BLOCKS.has(node.localName)) {
      line = null;
      safe.append(node);
    } else if (line !== null) {
      line.append(node);
    } else if (node.textContent.trim() !== "") {
      line = element("p", {}, node);
      safe.append(line);
    }
  }
  return safe;
}

function rebuildAll(parent) {
  return [...parent.childNodes].flatMap(rebuild);
}

function rebuild(node) {
  if (node.nodeType === Node.TEXT_NODE) {
    return [document.createTextNode(node.data)];
  }
  if (node.nodeType !== Node.ELEMENT_NODE || DROPPED.has(node.localName)) {
    return [];
  }
  if (node.namespaceURI === MATHML) {
    return rebuildMath(node);
  }
  return node.namespaceURI === HTML ? rebuildHtml(node) : [];
}

function rebuildHtml(node) {
  const name = node.localName;
  if (name === "input") {
    return node.type === "checkbox" ? [tick(node.hasAttribute("checked"))] : [];
  }
  if (name === "a") {
    return link(node);
  }
  if (!PLAIN.has(name)) {
    return rebuildAll(node);
  }
  const safe = element(name, {}, ...rebuildAll(node));
  copyAttributes(node, safe);
  return [safe];
}

function copyAttributes(node, safe) {
  const name = node.localName;
  if (name === "span" && node.closest("pre") !== null) {
    safe.className = [...node.classList].filter((word) => TOKEN.test(word)).join(" ");
  }
  if (name === "pre") {
    const language = languageOf(node);
    if (language !== null) {
      safe.dataset.language = language;
    }
  }
  if (name === "ol" && /^\d{1,9}$/.test(node.getAttribute("start") ?? "")) {
    safe.setAttribute("start", node.getAttribute("start"));
  }
  if (name === "th" || name === "td") {
    const side = ALIGNED.exec(`${node.getAttribute("align")} ${node.getAttribute("style")} ${node.className}`);
    if (side !== null) {
      safe.className = `to-${side[0]}`;
    }
  }
  if ((name === "ul" || name === "ol") && safe.querySelector(":scope > li > .tick, :scope > li > p > .tick") !== null) {
    safe.className = "tasks";
  }
  if (safe.className === "") {
    safe.removeAttribute("class");
  }
}

function languageOf(pre) {
  const holders = [pre.querySelector("code"), pre, pre.parentElement];
  for (const word of holders.flatMap((holder) => [...(holder?.classList ?? [])])) {
    const found = LANGUAGE.exec(word);
    if (found !== null) {
      return found[1];
    }
  }
  return null;
}

function tick(done) {
  const label = done ? "done" : "todo";
  return element("span", { class: `tick ${label}`, role: "img", "data-say-label": label });
}

function link(node) {
  const children = rebuildAll(node);
  let address;
  try {
    address = new URL(node.getAttribute("href") ?? ""); // relative ones throw: a model has no page of ours to point to
  } catch {
    return children;
  }
  if (!LINKS.has(address.protocol)) {
    return children;
  }
  return [element("a", { href: address.href, target: "_blank", rel: "noopener noreferrer nofollow" }, ...children)];
}

function rebuildMath(node) {
  if (!MATH.has(node.localName)) {
    return [];
  }
  const safe = document.createElementNS(MATHML, node.localName);
  for (const { name, value } of node.attributes) {
    if (MATH_ATTRIBUTES.has(name) && MATH_VALUE.test(value)) {
      safe.setAttribute(name, value);
    } else if (name === "alttext" && value.length <= TEX_CHARS_MAX) {
      safe.dataset.tex = value; // for copies only: as `alttext` it would be read aloud in place of the formula
    } else if (name === "data-style") {
      styleMath(safe, value);
    }
  }
  for (const child of node.childNodes) {
    if (child.nodeType === Node.TEXT_NODE || child.namespaceURI === HTML) {
      safe.append(child.textContent); // HTML inside a formula is read as its letters
    } else {
      safe.append(...rebuild(child));
    }
  }
  return [safe];
}

/** Set the declarations that the renderer of formulas writes; the page's policy forbids style attributes. */
function styleMath(safe, style) {
  for (const declaration of style.split(";")) {
    const [name, value] = declaration.split(":").map((part) => part.trim());
    if (value !== undefined && MATH_STYLES.get(name.replace(SIDE, ""))?.test(value)) {
      safe.style.setProperty(name, value);
      if (name === "color") {
        safe.style.setProperty(name, `color-mix(in oklab, ${value} 55%, var(--ink))`); // readable on light and dark paper
      }
    }
  }
}
