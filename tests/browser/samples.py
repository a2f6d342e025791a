"""Answers with every kind of content, split and rendered as the service does."""

from proxy.chat.paragraphs import ParagraphSplitter
from proxy.chat.render import BlockKind, render_block


def blocks(kind: BlockKind, markdown: str) -> tuple[str, ...]:
    """Return the messages of a text."""
    cutter = ParagraphSplitter()
    pieces = (*cutter.feed(markdown), *cutter.flush())
    return tuple(render_block(kind, piece) for piece in pieces)


CODE = """\
可以这样写：

```python
def is_palindrome(text: str) -> bool:
    \"\"\"Whether a text reads the same from both ends, letters and digits alone.\"\"\"
    kept = [letter.lower() for letter in text if letter.isalnum()]
    # 两端向中间比较，遇到不同就停，中文也一样：上海自来水来自海上
    half = range(len(kept) // 2)
    return all(kept[i] == kept[-1 - i] for i in half) and "a very long line" != "beyond the right edge"
```
"""
TABLE = """\
| 模型 | 上下文 | 首字延迟 | 价格 |
|---|---|--:|--:|
| spark-x | 128K，含思考过程的全部内容 | 0.62 s | ¥4.00 |
| deepseek-reasoner | 64K | 1.10 s | ¥16.00 |
| qwen-plus | 1M | 0.48 s | ¥2.00 |

"""
FORMULA = r"""二次方程 $ax^2+bx+c=0$ 的两个根是：

$$x=\frac{-b\pm\sqrt{b^2-4ac}}{2a}$$
"""
PROSE = """\
大语言模型是在海量文本上训练出来的神经网络，它学会了根据前文预测下一个词。\
训练之后，它能够**续写、翻译、总结和回答问题**，靠的都是同一个能力。

它并不“知道”事实：答得流畅不等于答得正确，所以要紧的结论需要核对。\
可以参考[这份说明](https://example.org/llm)，或运行 `make run` 自己试一试。

"""
LISTS = """\
### 三个步骤

1. 把文本切成词元；
2. 让每个词元与前面的词元相互注意，*逐层*混合信息；
3. 给出下一个词元的概率。
   - 温度高，选择就更分散；
   - 温度低，更稳定。

> 预测得足够好，就很像理解。

- [x] 读完说明
- [ ] 跑一遍例子

"""
REASONING = """\
用户想知道大语言模型是什么，并且只要三句话。先说训练，再说能力，最后提醒局限。

注意不要夸大：流畅不等于正确。

"""
ENGLISH_REASONING = """\
The question is broad; three sentences will do. First the training, then the skill, then its limit.

"""
ENGLISH = """\
A large language model is a neural network trained on vast amounts of text to predict what comes next. \
From that one skill it can **continue, translate, summarise and answer**. It does not *know* facts, so \
check what matters.

### In two steps

1. Text is cut into tokens.
2. Every token attends to those before it.

"""
LONG_CHINESE = "".join(
    f"第{n}段。海内存知己，天涯若比邻。无为在歧路，儿女共沾巾。这一段写得长一些，好让行宽、行距和标点都看得清楚："
    "引号“如此”，括号（也是如此），还有 English words 与数字 12,345.67 混排的样子——以及破折号。\n\n"
    for n in "一二三四五六七八"
)
LONG_CODE = "```python\n" + "".join(f"total_{n} = {n}  # 第 {n} 行\n" for n in range(60)) + "```\n"
WIDE_TABLE = (
    "|"
    + " 很长的列名 |" * 9
    + "\n|"
    + "---|" * 9
    + "\n"
    + ("|" + " unbreakable-word-12345 |" * 9 + "\n") * 2
    + "\n"
)
MODELS = """\
| 模型名称 | 上下文长度 | 支持流式输出 | 支持工具调用 | 思考模式 | 输入价格 | 输出价格 | 首字延迟 | 备注 |
|---|--:|---|---|---|--:|--:|--:|---|
| `spark-x` | 128K | 支持 | 支持，每次至多八个工具 | 默认开启 | ¥4.00 | ¥16.00 | 0.62 s | 计入上下文长度 |
| `deepseek-reasoner` | 64K | 支持 | 不支持 | 总是开启 | ¥4.00 | ¥16.00 | 1.10 s | |

"""
ENGLISH_MODELS = """\
| Model | Context | Streaming | Tool calls | Reasoning | Input | Output | First token | Remarks |
|---|--:|---|---|---|--:|--:|--:|---|
| `spark-x` | 128K | supported | up to eight at once | on by default | $0.56 | $2.24 | 0.62 s | counted |
| `deepseek-reasoner` | 64K | supported | not supported | always on | $0.56 | $2.24 | 1.10 s | |

"""
"""Nine columns, as models write them."""
SUM = "+".join(f"x_{{{n}}}^2" for n in range(40))
"""A formula that is wider than any column."""
