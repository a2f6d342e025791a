// Every word of the interface, in Chinese and English, and what puts them into elements.
// The keys from `busy` to `not_allowed` are codes of the service (`proxy/chat/notices.py`).
import { recall, remember } from "./preferences.js";

const TABLE = {
  title: ["对话", "Chat"],
  open: ["问一问", "Ask"],
  close: ["关闭", "Close"],
  fresh: ["新对话", "New chat"],
  conversations: ["全部对话", "Conversations"],
  closeList: ["收起列表", "Close the list"],
  search: ["搜索对话", "Search"],
  rename: ["改标题", "Rename"],
  newTitle: ["新标题", "New title"],
  remove: ["删除", "Delete"],
  removed: ["已删除", "Deleted"],
  undo: ["撤销", "Undo"],
  notRemoved: ["没能删除，请再试一次。", "It was not deleted. Try again."],
  save: ["导出为 Markdown", "Export as Markdown"],
  noConversations: ["还没有对话", "No conversations yet"],
  noneFound: ["没有找到", "Nothing found"],
  noList: ["列表暂时读不到", "The list cannot be read at the moment"],
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
  placeholder: ["写下问题", "Ask a question"],
  model: ["模型", "Model"],
  edit: ["编辑", "Edit"],
  copyQuestion: ["复制", "Copy"],
  copyBoth: ["复制问答", "Copy both"],
  editing: ["改写问题", "Edit the question"],
  askAgain: ["另问一次", "Ask this instead"],
  cancel: ["取消", "Cancel"],
  branched: ["改自另一个对话", "Edited from another conversation"],
  openSource: ["看原来的", "Open it"],
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
  busy: ["上一个问题还在回答中，请等它结束，或先停止。", "An answer is still being written. Wait for it, or stop it first."],
  prompt_too_long: ["问题太长，最多 {n} 个字。", "The question is too long: {n} characters at most."],
  nothing_to_answer: ["还没有可以重新回答的问题。", "There is no question yet to answer again."],
  no_answer: ["模型没有给出回答，请再试一次。", "The model gave no answer. Try again."],
  rejected: ["模型拒绝了这次请求（状态码 {n}）。", "The model rejected this request with the status {n}."],
  unreachable: ["暂时连不上模型，请稍后再试。", "The model cannot be reached at the moment. Try again later."],
  timed_out: ["模型长时间没有回应，请重试。", "The model took too long to answer. Try again."],
  overloaded: ["当前提问的人较多，请稍后再试。", "Too many people are asking at the moment. Try again later."],
  cut_off: ["回答中断了，请重试。", "The answer was cut off. Try again."],
  restarting: ["服务正在重启，请稍后再问。", "The service is restarting. Ask again in a moment."],
  model_forbidden: ["这个模型暂不可用，请联系管理员。", "This model is not available here. Tell the operator."],
  broken: ["出了点问题，请重试。", "Something went wrong. Try again."],
  store_corrupt: ["保存的对话无法读取，请联系管理员，或新建对话。", "The stored conversation cannot be read. Tell the operator, or start a new chat."],
  unsafe: ["内容未通过安全审核，后续无法显示。", "The content was stopped by a safety check."],
  model_busy: ["当前提问的人较多，请稍后再试。", "The model is busy. Try again in a moment."],
  unavailable: ["服务暂时不可用，请稍后再试。", "The service is temporarily unavailable. Try again later."],
  dialogue_too_long: ["对话太长了，请新建对话后再试。", "The conversation is too long. Start a new one."],
  bad_request: ["服务无法处理这个请求。", "The service could not handle this request."],
  not_allowed: ["服务的权限或额度不足。", "The service has no permission or quota left for this."],
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
  begun: ["已开始新对话", "New chat started"],
  tooOften: ["发得太快了，请过 {n} 秒再发。", "That was too fast. Send it again in {n} s."],
  forbidden: ["这个对话属于另一个会话，请刷新页面后再试。", "This chat belongs to another session. Reload the page and try again."],
  tooLong: ["问题太长了，请缩短后再发。", "The question is too long. Shorten it and send again."],
  undelivered: ["没有送到，请再试一次。", "It was not delivered. Try again."],
  unsent: ["没有送到，文字还在输入框里。请再发一次。", "It was not delivered and is still in the box. Send it again."],
  notStopped: ["没能停下来。再按一次就不再等它。", "It did not stop. Press again to wait no longer."],
};

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

  /** Let an element say what a code of the service means, or the service's own words if the code is not known. */
  explain(node, { reason, number = null, words }) {
    if (Object.hasOwn(TABLE, reason ?? "")) {
      this.set(node, reason, number);
    } else {
      node.textContent = words.trim();
    }
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
      if (node.dataset?.sayPlaceholder) {
        node.placeholder = this.say(node.dataset.sayPlaceholder);
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
