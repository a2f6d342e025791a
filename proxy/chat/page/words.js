// Every word of the interface, in Chinese and English, and what puts them into elements.
import { recall, remember } from "./preferences.js";

const TABLE = {
  title: ["对话", "Chat"],
  open: ["问一问", "Ask"],
  close: ["关闭", "Close"],
  fresh: ["新对话", "New chat"],
  freshSure: ["清空全部内容？", "Clear everything?"],
  language: ["English", "中文"],
  toDark: ["换成深色", "Use dark colours"],
  toLight: ["换成浅色", "Use light colours"],
  conversation: ["对话内容", "Conversation"],
  log: ["问答", "Questions and answers"],
  you: ["你的问题", "You asked"],
  answer: ["回答", "Answer"],
  emptyLine: ["想弄明白什么？写下来就好。", "What do you want to understand?"],
  examples: ["可以这样问", "Questions to start with"],
  example1: ["用三句话说明什么是大语言模型。", "Explain in three sentences what a large language model is."],
  example2: ["写一个 Python 函数，判断一个字符串是不是回文。", "Write a Python function that tells whether a string is a palindrome."],
  example3: ["“海内存知己”出自哪里？请译成英文。", "Where does “To be, or not to be” come from?"],
  input: ["你的问题", "Your question"],
  send: ["发送", "Send"],
  stop: ["停止回答", "Stop the answer"],
  stopping: ["正在停止", "Stopping"],
  keys: ["Enter 发送，Shift + Enter 换行 · ", "Enter sends, Shift + Enter starts a new line · "],
  fineprint: ["内容由 AI 生成，请核对要紧的信息", "Written by AI: check what matters"],
  waiting: ["等待模型开始", "Waiting for the model to begin"],
  thinking: ["思考中 · {n} 秒", "Thinking · {n} s"],
  thought: ["已思考 · {n} 秒", "Thought · {n} s"],
  reasoning: ["思考过程", "Reasoning"],
  stopped: ["已停止", "Stopped"],
  took: ["用时 {n} 秒", "Took {n} s"],
  copyAnswer: ["复制回答", "Copy answer"],
  copyCode: ["复制", "Copy"],
  copied: ["已复制", "Copied"],
  notCopied: ["没能复制", "Could not copy"],
  again: ["重新回答", "Answer again"],
  failed: ["这次没有答完", "The answer did not finish"],
  retry: ["再试一次", "Try again"],
  interrupted: ["服务在回答途中断开了。", "The service broke off in the middle."],
  toEnd: ["到最新", "To the latest"],
  code: ["代码", "Code"],
  formula: ["公式", "Formula"],
  done: ["已完成", "Done"],
  todo: ["未完成", "To do"],
  offline: ["网络已断开。恢复后会自动接上，已有的内容不会丢。", "You are offline. It resumes by itself; nothing shown is lost."],
  lost: ["连接断了，正在重新连接…", "The connection broke. Reconnecting…"],
  back: ["已重新连接", "Connected again"],
  statusThinking: ["正在思考", "Thinking"],
  statusAnswering: ["正在回答", "Answering"],
  statusDone: ["回答完毕", "The answer is complete"],
  cleared: ["已开始新对话", "New chat started"],
  tooOften: ["发得太快了，请过 {n} 秒再发。", "That was too fast. Send it again in {n} s."],
  forbidden: ["这个对话属于另一个会话，请刷新页面后再试。", "This chat belongs to another session. Reload the page and try again."],
  tooLong: ["问题太长了，请缩短后再发。", "The question is too long. Shorten it and send again."],
  unreachable: ["没有送到，文字还在输入框里。请再发一次。", "It was not delivered and is still in the box. Send it again."],
  notStopped: ["没能停下来，请再按一次。", "It did not stop. Press again."],
};

const BOTH = /^(.*[\u4e00-\u9fff].*[。！？])\s*([A-Z][^\u4e00-\u9fff]*[.!?])$/s;

/** The language in force: what was chosen, else the browser's: "zh" or "en". */
export function chosenLanguage() {
  const kept = recall("language");
  if (kept === "zh" || kept === "en") {
    return kept;
  }
  return navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
}

/** One language's words. Elements name theirs: `data-say` the text, `data-say-label` the label, `data-say-n` a number. */
export class Words {
  constructor(language = chosenLanguage()) {
    this.language = language;
  }

  /** Change over and keep that. */
  toggle() {
    this.language = this.language === "zh" ? "en" : "zh";
    remember("language", this.language);
    dispatchEvent(new CustomEvent("llm-chat-language", { detail: this.language }));
  }

  /** The words of a key, with `{n}` filled in. */
  say(key, n = "") {
    return TABLE[key][this.language === "zh" ? 0 : 1].replace("{n}", n);
  }

  /** Of what the service says in Chinese and then in English, the half in this language; anything else as it is. */
  half(text) {
    const found = BOTH.exec(text.trim());
    return found === null ? text.trim() : found[this.language === "zh" ? 1 : 2];
  }

  /** Write the words into an element and everything below it. */
  apply(root) {
    for (const node of [root, ...root.querySelectorAll("[data-say], [data-say-label]")]) {
      if (node.dataset?.say) {
        node.textContent = this.say(node.dataset.say, node.dataset.sayN);
        if (node.dataset.say === "language") {
          node.lang = this.language === "zh" ? "en" : "zh"; // it names the other one
        }
      }
      if (node.dataset?.sayLabel) {
        const label = this.say(node.dataset.sayLabel);
        node.setAttribute("aria-label", label);
        if (node.localName === "button") {
          node.title = label;
        }
      }
    }
    return root;
  }

  /** Let an element say something else from now on. */
  set(node, key, n = null) {
    node.dataset.say = key;
    if (n === null) {
      delete node.dataset.sayN;
    } else {
      node.dataset.sayN = n;
    }
    node.textContent = this.say(key, n ?? "");
  }
}
