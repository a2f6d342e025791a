"""Which repairs there are, whom each is for, and which sets of them a client needs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

Stage = Literal["request", "answer", "stream"]


@dataclass(frozen=True, slots=True)
class Repair:
    """One cure.

    Args:
        name: As it is written in the settings.
        cures: What it does, in one sentence.
        clients: Whom it is for, with versions where they are known.
        stages: What it looks at: requests, whole answers, streams.
    """

    name: str
    cures: str
    clients: tuple[str, ...]
    stages: tuple[Stage, ...]


@dataclass(frozen=True, slots=True)
class Repairs:
    """The repairs that are on, by stage, in the order in which they are done. Falsy without any."""

    names: tuple[str, ...] = ()
    request: tuple[str, ...] = ()
    answer: tuple[str, ...] = ()
    stream: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.names)

    def __or__(self, other: "Repairs") -> "Repairs":
        """What either turns on: an upstream's and a caller's together."""
        return resolve((*self.names, *other.names)) if other.names != self.names else self


DECODE_TOKEN_IDS: Final = "decode_token_ids"  # noqa: S105 - a repair's name
"""The one repair that needs more than the request: the encodings of tokens."""

_ALL: Final = (
    Repair(
        "drop_params",
        "Takes the field `drop_params` out of a request, which strict gateways answer with 400.",
        ("RAGFlow v0.21.0 to v0.27.0, embeddings (ragflow#18584)",),
        ("request",),
    ),
    Repair(
        "drop_empty_tools",
        "Takes an empty `tools` out of a request, with `tool_choice` and `parallel_tool_calls`.",
        ("RAGFlow v0.27 and later, models flagged as supporting tools",),
        ("request",),
    ),
    Repair(
        "drop_tool_call_index",
        "Takes `index`, null or a number, out of the tool calls that a client sends back in its history.",
        ("RAGFlow, agents and models with tools",),
        ("request",),
    ),
    Repair(
        DECODE_TOKEN_IDS,
        "Writes texts where an embedding request holds token ids; needs the extra `tiktoken`.",
        ("LangChain, OpenAIEmbeddings with check_embedding_ctx_length=True (langchain-openai 1.7.4)",),
        ("request",),
    ),
    Repair(
        "ask_usage",
        "Asks for the usage of every stream, so that it can be counted.",
        ("all, where keys have a budget of tokens; drop_unasked_chunks hides it from who did not ask",),
        ("request",),
    ),
    Repair(
        "refuse_token_ids",
        "Answers token ids in place of text in an embedding request with a 400 that names the option.",
        ("LangChain, OpenAIEmbeddings with check_embedding_ctx_length=True (langchain-openai 1.7.4)",),
        ("request",),
    ),
    Repair(
        "utf8",
        "Turns an answer or event that is not valid UTF-8 into an error.",
        ("all",),
        ("answer", "stream"),
    ),
    Repair(
        "lf_newlines",
        "Writes the line ends of a stream, CRLF or CR, as LF.",
        ("Dify, openai_api_compatible 0.0.63, which parts events at two LF",),
        ("stream",),
    ),
    Repair(
        "drop_event_lines",
        "Takes `event:`, `id:` and `retry:` lines out of a stream, and gives comments blocks of their own.",
        ("Dify, openai_api_compatible 0.0.63, which ends at a line that is no JSON",),
        ("stream",),
    ),
    Repair(
        "vendor_errors",
        "Turns the error shapes of Spark, Baidu, MiniMax and others inside a 200 into OpenAI errors.",
        ("all",),
        ("answer", "stream"),
    ),
    Repair(
        "true_errors",
        "Turns a 200 with an error, HTML, no JSON or nothing into an error with a true status.",
        ("RAGFlow, which takes them for an empty answer", "Dify", "Open WebUI", "FastGPT", "LangChain"),
        ("answer", "stream"),
    ),
    Repair(
        "sort_embeddings",
        "Sorts embeddings by index, and fills the index in.",
        (
            "RAGFlow (needs the index; up to v0.25.6 also the order)",
            "Dify",
            "Open WebUI 0.12.4",
            "LlamaIndex (embeddings-openai 0.7.0)",
        ),
        ("answer",),
    ),
    Repair(
        "tei_rerank",
        "Translates rerank requests into those of Hugging Face's TEI, and its answers back.",
        ("all, at an upstream that is TEI (ragflow#10012)",),
        ("request", "answer"),
    ),
    Repair(
        "fill_content",
        "Writes an empty text where a message without tool calls has null or no content.",
        ("RAGFlow, tools and vision",),
        ("answer",),
    ),
    Repair(
        "fill_usage",
        "Writes numbers where the usage of a whole answer is absent or null.",
        ("RAGFlow, embeddings and vision", "Dify, embeddings", "Cherry Studio, embeddings"),
        ("answer",),
    ),
    Repair(
        "fill_delta",
        "Writes `{}` where a chunk's delta is null.",
        ("RAGFlow",),
        ("stream",),
    ),
    Repair(
        "index_tool_calls",
        "Gives tool calls the index that they lack, and a lone tool call its list.",
        (
            "RAGFlow (streams; up to v0.24 whole answers too)",
            "Open WebUI 0.12.4",
            "LlamaIndex (llms-openai 0.8.3)",
        ),
        ("answer", "stream"),
    ),
    Repair(
        "split_finish",
        "Parts a chunk with both content and a finish_reason into two.",
        ("RAGFlow, vision", "Continue, which holds back chunks with usage"),
        ("stream",),
    ),
    Repair(
        "usage_once",
        "Leaves usage on the last chunk alone, where an upstream writes it on every chunk.",
        ("RAGFlow, which adds them up", "Continue, which loses the text beside it"),
        ("stream",),
    ),
    Repair(
        "drop_unasked_chunks",
        "Takes chunks without choices out of a stream, unless the client asked for usage.",
        ("RAGFlow, vision",),
        ("stream",),
    ),
    Repair(
        "accept_missing_end",
        "Accepts a chat or completion stream that ends with neither `[DONE]` nor a finish_reason.",
        ("all, at an upstream that never sends either; the proxy can then not detect every cut answer",),
        ("stream",),
    ),
)

REPAIRS: Final[Mapping[str, Repair]] = MappingProxyType({repair.name: repair for repair in _ALL})
"""Every repair by its name, in the order in which repairs are done."""

_ERRORS: Final = ("utf8", "vendor_errors", "true_errors")

SETS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "ragflow": (
            "drop_params",
            "drop_empty_tools",
            "drop_tool_call_index",
            *_ERRORS,
            "sort_embeddings",
            "fill_content",
            "fill_usage",
            "fill_delta",
            "index_tool_calls",
            "split_finish",
            "usage_once",
            "drop_unasked_chunks",
        ),
        "dify": (*_ERRORS, "lf_newlines", "drop_event_lines", "sort_embeddings", "fill_usage"),
        "open_webui": (*_ERRORS, "sort_embeddings", "index_tool_calls"),
        "fastgpt": _ERRORS,
        "langchain": (*_ERRORS, "refuse_token_ids"),
        "llamaindex": (*_ERRORS, "sort_embeddings", "index_tool_calls"),
        "cherry_studio": (*_ERRORS, "fill_usage"),
        "continue": (*_ERRORS, "split_finish", "usage_once"),
    }
)
"""The repairs that a client needs, by the client's name."""


def known_names() -> tuple[str, ...]:
    """All that may be asked for: sets first, then single repairs."""
    return (*SETS, *REPAIRS)


def resolve(names: Iterable[str]) -> Repairs:
    """Turn on repairs by name, sets included.

    Raises:
        KeyError: a name that is neither a set nor a repair.
    """
    wanted: set[str] = set()
    for name in names:
        wanted.update(SETS[name] if name in SETS else (REPAIRS[name].name,))
    on = [repair for repair in _ALL if repair.name in wanted]

    def of(stage: Stage) -> tuple[str, ...]:
        return tuple(repair.name for repair in on if stage in repair.stages)

    return Repairs(tuple(repair.name for repair in on), of("request"), of("answer"), of("stream"))
