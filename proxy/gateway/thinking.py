"""A model that thinks aloud before it answers, in the language of the question: the web chat shows it."""

import re
from dataclasses import dataclass
from typing import Final

from proxy.gateway.answers import ChatAnswer, JsonObject
from proxy.gateway.echo import Turn, split_pieces

THINKING_MODELS: Final = frozenset({"x1", "mock-thinking-model"})
"""Not listed: the list names one model for chat and one for embeddings."""

QUOTED_CHARACTERS: Final = 400
"""As much of a question is repeated."""
_PIECES_AT_ONCE: Final = 3
"""Characters of a script without spaces that come together, as a model's tokens hold several."""

_CHINESE: Final = re.compile(r"[\u4e00-\u9fff]")

_THOUGHTS_ZH: Final = """\
用户想知道的是：“{short}”。
我是演示用的模型，不认识外面的世界，所以先把问题原样复述一遍。
然后用几种常见的 Markdown 写法，让人看清页面是怎样一段一段显示的。
"""
_ANSWER_ZH: Final = """\
你的问题是：

> {question}

我是内置的演示模型，只会复述问题。换成真正的上游以后，这里就是它的回答。

### 这个页面能显示什么

1. **段落**：一句写完就显示一句，不必等到全文结束。
2. 列表、`行内代码`，以及[链接](https://example.com/)。
3. 表格和代码块：

```python
def greet(name: str) -> str:
    return f"你好，{{name}}！"
```

| 内容 | 来自 |
|---|---|
| 思考 | `reasoning_content` |
| 回答 | `content` |

这一轮共有 {turns} 条消息。还想问点什么吗？
"""
_THOUGHTS_EN: Final = """\
The question is: "{short}".
I am a model for demonstrations and know nothing of the world, so I shall repeat the question first.
Then I shall use some Markdown, to show how the page fills up piece by piece.
"""
_ANSWER_EN: Final = """\
You asked:

> {question}

I am the built-in demonstration model and only repeat what I am asked. A real upstream answers here.

### What this page can show

1. **Paragraphs**: a sentence is shown as soon as it is written.
2. Lists, `inline code`, and [links](https://example.com/).
3. Tables and blocks of code:

```python
def greet(name: str) -> str:
    return f"Hello, {{name}}!"
```

| what | comes from |
|---|---|
| thinking | `reasoning_content` |
| answer | `content` |

Messages in this round: {turns}. What else would you like to know?
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ThinkingAnswer(ChatAnswer):
    """An answer whose first pieces are thoughts, as DeepSeek and Spark write them.

    Args:
        thoughts: How many of the pieces are.
    """

    thoughts: int

    def _whole_part(self, text: str) -> JsonObject:
        thought = "".join(self.pieces[: self.thoughts])
        message: JsonObject = {"role": "assistant", "content": text.removeprefix(thought), "refusal": None}
        return {"message": {**message, "reasoning_content": thought}}

    def _piece_parts(self) -> list[JsonObject]:
        cut = self.thoughts
        thinking: list[JsonObject] = [{"delta": {"reasoning_content": piece}} for piece in self.pieces[:cut]]
        answering: list[JsonObject] = [{"delta": {"content": piece}} for piece in self.pieces[cut:]]
        return [*thinking, *answering]


def think(turns: list[Turn]) -> tuple[list[str], list[str]]:
    """The pieces of the thoughts and those of the answer to the last message."""
    question = turns[-1].text.strip() if turns else ""
    chinese = _CHINESE.search(question) is not None
    thoughts, answer = (_THOUGHTS_ZH, _ANSWER_ZH) if chinese else (_THOUGHTS_EN, _ANSWER_EN)
    short = " ".join(question[:40].split())
    quoted = question[:QUOTED_CHARACTERS].replace("\n", "\n> ")
    written = answer.format(question=quoted, turns=len(turns))
    return _tokens(thoughts.format(short=short)), _tokens(written)


def _tokens(text: str) -> list[str]:
    """The pieces of a text, single characters joined as long as no line and no sentence ends between them."""
    tokens: list[str] = []
    joined = 0
    for piece in split_pieces(text):
        if tokens and len(piece) == 1 and 0 < joined < _PIECES_AT_ONCE and tokens[-1][-1] not in "。！？：\n":
            tokens[-1] += piece
            joined += 1
        else:
            tokens.append(piece)
            joined = 1 if len(piece) == 1 else 0
    return tokens
