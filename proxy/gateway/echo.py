"""The texts of the gateway's answers, split into pieces as a model splits text into tokens."""

import re
from typing import Final, NamedTuple

# The spelling is the echo article's.
LAST_MESSAGE = "As a mock AI Assitant, I can only echo your last message:"
NO_MESSAGES = "As a mock AI Assitant, I can only echo your last message, but there were no messages!"

QUOTED_CHARACTERS: Final = 400
"""How much of a question a thinking model quotes."""
_TOKEN_CHARACTERS: Final = 3
"""Characters of a script without spaces that form one piece of a thinking model, as with a real tokenizer."""

# Scripts that put no spaces between words, with their full-width punctuation: CJK radicals to ideographs,
# compatibility ideographs and forms, full-width forms, the supplementary ideographic planes.
_WIDE = r"\u2e80-\u9fff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef\U00020000-\U0003ffff"
_PIECE = re.compile(rf"[{_WIDE}]\s*|[^\s{_WIDE}]+\s*|\s+")
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


class PromptTurn(NamedTuple):
    """One message of the dialogue."""

    role: str
    text: str


def echo_sentence(turns: list[PromptTurn]) -> str:
    """Echo the last message if the first one is the user's, as in the article (not after a system prompt)."""
    if turns and turns[0].role == "user":
        return LAST_MESSAGE + turns[-1].text
    return NO_MESSAGES


def think(turns: list[PromptTurn]) -> tuple[list[str], list[str]]:
    """Return the pieces of the reasoning and of the answer, in the language of the last message."""
    question = turns[-1].text.strip() if turns else ""
    chinese = _CHINESE.search(question) is not None
    thoughts, answer = (_THOUGHTS_ZH, _ANSWER_ZH) if chinese else (_THOUGHTS_EN, _ANSWER_EN)
    short = " ".join(question[:40].split())
    quoted = question[:QUOTED_CHARACTERS].replace("\n", "\n> ")
    written = answer.format(question=quoted, turns=len(turns))
    return _split_tokens(thoughts.format(short=short)), _split_tokens(written)


def split_pieces(text: str) -> list[str]:
    """Split a text into pieces whose concatenation is the text.

    A piece is a word with the space after it, or one character of a script without spaces.
    """
    return _PIECE.findall(text)


def _split_tokens(text: str) -> list[str]:
    """Split a text into pieces, joining single characters up to the end of a line or sentence."""
    tokens: list[str] = []
    joined = 0
    for piece in split_pieces(text):
        if (
            tokens
            and len(piece) == 1
            and 0 < joined < _TOKEN_CHARACTERS
            and tokens[-1][-1] not in "。！？：\n"
        ):
            tokens[-1] += piece
            joined += 1
        else:
            tokens.append(piece)
            joined = 1 if len(piece) == 1 else 0
    return tokens
