// The page `/chat/`: one chat that fills it, and a document that follows its language and colours.
import "./chat.js";
import { followTheme } from "./theme.js";
import { chosenLanguage, Words } from "./words.js";

function nameDocument(language) {
  document.documentElement.lang = language;
  if (!entitled) {
    document.title = new Words(language).say("title");
  }
}

let entitled = false;
addEventListener("llm-chat-title", (event) => {
  entitled = true;
  document.title = event.detail;
});
followTheme(document.documentElement);
nameDocument(chosenLanguage());
addEventListener("llm-chat-language", (event) => nameDocument(event.detail));
