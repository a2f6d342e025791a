// Builds elements, icons and style sheets. No HTML text is parsed here.

const SVG = "http://www.w3.org/2000/svg";
const INPUT_METHOD = 229; // `keyCode` of a key that an input method took for itself, in Safari after its end as well

const ICONS = {
  send: ["M12 19V5", "M6 11l6-6 6 6"],
  stop: ["M7 7h10v10H7z"],
  fresh: ["M12 5v14", "M5 12h14"],
  sun: ["M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8z", "M12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.4 1.4M17.6 17.6 19 19M19 5l-1.4 1.4M6.4 17.6 5 19"],
  moon: ["M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.500 10.500z"],
  close: ["M6 6l12 12", "M18 6 6 18"],
  copy: ["M9 9h10v11H9z", "M15 9V4H5v11h4"],
  again: ["M19 12a7 7 0 1 1-2-5", "M19 3v4.500h-4.500"],
  down: ["M12 5v14", "M6 13l6 6 6-6"],
  arrow: ["M5 12h14", "M13 6l6 6-6 6"],
  alert: ["M12 3 2.500 20h19z", "M12 10v4.500", "M12 17.400v.1"],
  list: ["M4 6h16", "M4 12h16", "M4 18h10"],
  edit: ["M4 20l1-4L16 5l3 3L8 19z", "M13.500 7.500l3 3"],
  trash: ["M5 7h14", "M10 7V4h4v3", "M7 7l1 13h8l1-13"],
  save: ["M12 4v11", "M7 10.500l5 5 5-5", "M5 20h14"],
  chat: ["M4 5h16v11H11l-4 4v-4H4z", "M8 9h8M8 12.500h5"],
};

/**
 * Build one element.
 * @param tag its name
 * @param attributes by name; `on...` are listeners, `true` is an empty attribute, null and false are none
 * @param children nodes and texts
 */
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) {
      node.addEventListener(name.slice(2), value);
    } else if (value !== null && value !== false && value !== undefined) {
      node.setAttribute(name, value === true ? "" : value);
    }
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

/** Whether a key is an input method's own: Enter chooses a word, and Escape drops it. */
export function composes(event) {
  return event.isComposing || event.keyCode === INPUT_METHOD;
}

/** Draw an icon; it says nothing to a screen reader. */
export function icon(name, size = "") {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", `icon ${size}`.trim());
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  for (const line of ICONS[name]) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", line);
    svg.append(path);
  }
  return svg;
}

const sheets = new Map();

const mathFont = new FontFace("LLM Chat Math", `url("${new URL("fonts/math.woff2", import.meta.url)}") format("woff2")`);

/** Load the font of formulas with the first of them, which is then drawn again: Chromium does not stretch its parts anew. */
export async function loadMathFont(root) {
  if (mathFont.status === "loaded") {
    return;
  }
  document.fonts.add(mathFont);
  try {
    await mathFont.load();
  } catch {
    return; // the system's font remains
  }
  for (const math of root.querySelectorAll("math")) {
    math.replaceWith(math.cloneNode(true));
  }
}

/**
 * Dress a shadow root in style sheets that are next to this module; each is fetched once for all roots of the page.
 * Where sheets cannot be constructed (an old browser, a policy without `connect-src`), they are linked.
 */
export async function wear(root, ...names) {
  try {
    root.adoptedStyleSheets = await Promise.all(names.map(sheet));
  } catch {
    await Promise.all(names.map((name) => linked(root, name)));
  }
}

function sheet(name) {
  if (!sheets.has(name)) {
    const loading = load(name);
    loading.catch(() => sheets.delete(name)); // so that the next one may try again
    sheets.set(name, loading);
  }
  return sheets.get(name);
}

async function load(name) {
  const response = await fetch(new URL(name, import.meta.url), { credentials: "same-origin" });
  if (!response.ok) {
    throw new Error(`${name}: ${response.status}`);
  }
  return new CSSStyleSheet().replace(await response.text());
}

function linked(root, name) {
  return new Promise((resolve) => {
    const link = element("link", { rel: "stylesheet", href: new URL(name, import.meta.url).href });
    link.addEventListener("load", resolve);
    link.addEventListener("error", resolve); // plain is better than nothing
    root.append(link);
  });
}
