// The elements of a chat before anything is said: header, conversation, foot.
import { element, icon } from "./dom.js";

const EXAMPLES = ["example1", "example2", "example3"];

/**
 * Build the frame.
 * @param composer the form of the input
 * @param list the panel with the conversations
 * @param actions `{list, fresh, language, theme, close, example(text), toEnd, model(name)}`; `close` null: there is nothing to close
 * @returns its elements by name; `chat` holds them all
 */
export function buildFrame(composer, list, actions) {
  const log = element("div", { class: "log", role: "log", "data-say-label": "log", "aria-busy": "false" });
  const empty = emptyState(actions.example);
  const column = element("div", { class: "column" }, empty, log);
  const scroller = element(
    "div",
    { class: "scroller", tabindex: "0", role: "region", "data-say-label": "conversation" },
    column,
  );
  const toEnd = element(
    "button",
    { type: "button", class: "to-end", hidden: true, onclick: actions.toEnd },
    icon("down"),
    element("span", { "data-say": "toEnd" }),
  );
  const fineprint = element(
    "p",
    { class: "fineprint" },
    element("span", { class: "keys", "data-say": "keys" }),
    element("span", { "data-say": "fineprint" }),
  );
  const under = element("div", { class: "under" }, fineprint, toEnd);
  const foot = element("div", { class: "foot" }, composer, under);
  const middle = element("div", { class: "middle" }, scroller);
  const { header, list: toggle, model, theme, title } = buildHeader(actions);
  const veil = element("div", { class: "veil", hidden: true, onclick: actions.list });
  const chat = element("div", { class: "chat", hidden: true }, header, veil, list, middle, foot);
  return { chat, column, empty, foot, log, model, scroller, theme, title, toEnd, toggle, veil };
}

function emptyState(example) {
  const examples = EXAMPLES.map((key) => element("li", {}, element(
    "button",
    { type: "button", class: "example", onclick: (event) => example(event.currentTarget.textContent) },
    element("span", { "data-say": key }),
    icon("arrow"),
  )));
  return element(
    "div",
    { class: "empty", hidden: true },
    element("h2", { "data-say": "emptyLine" }),
    element("ul", { "data-say-label": "examples" }, ...examples),
  );
}

function buildHeader(actions) {
  const list = tool("conversations-toggle", actions.list, icon("list"));
  list.dataset.sayLabel = "conversations";
  list.setAttribute("aria-expanded", "false");
  const label = element("span", { class: "label", "data-say": "fresh" });
  const fresh = tool("fresh", actions.fresh, icon("fresh"), label);
  fresh.dataset.sayLabel = "fresh";
  const language = tool("language", actions.language, element("span", { "data-say": "language" }));
  const theme = tool("theme", actions.theme);
  const title = element("h1", { class: "title", "data-say": "title" });
  const model = element("select", {
    class: "model",
    hidden: true,
    "data-say-label": "model",
    onchange: (event) => actions.model(event.currentTarget.value),
  });
  const header = element(
    "header",
    { class: "header" },
    list,
    title,
    model,
    fresh,
    language,
    theme,
  );
  if (actions.close !== null) {
    const close = tool("close", actions.close, icon("close"));
    close.dataset.sayLabel = "close";
    header.append(close);
  }
  return { header, list, model, theme, title };
}

function tool(className, onclick, ...children) {
  return element("button", { type: "button", class: `tool ${className}`, onclick }, ...children);
}
