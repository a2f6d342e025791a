"""Chat and plain completions: their request bodies, and an echo of the last message as the answer."""

from typing import Annotated, Final

import msgspec
from quart import Blueprint, Response

from proxy.gateway.answers import Answer, ChatAnswer, TextAnswer, stream_response
from proxy.gateway.echo import PromptTurn, echo_sentence, split_pieces, think
from proxy.gateway.http import json_response, read_body
from proxy.gateway.state import current_gateway

CHAT_MODEL: Final = "mock-gpt-model"
THINKING_MODELS: Final = frozenset({"x1", "mock-thinking-model"})
"""Models that reason before they answer. They are not in the model list."""

blueprint = Blueprint("completions", __name__, url_prefix="/v1")


class StreamOptions(msgspec.Struct):
    """OpenAI's `stream_options`."""

    include_usage: bool | None = False


class GenerationRequest(msgspec.Struct, kw_only=True):
    """Fields that chat and plain completions share; the defaults are the echo article's."""

    model: str = CHAT_MODEL
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = 512
    temperature: float | None = 0.1
    stream: bool | None = False
    stream_options: StreamOptions | None = None

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with its token counts."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def turns(self) -> list[PromptTurn]:
        """The dialogue so far."""
        raise NotImplementedError


class ContentPart(msgspec.Struct):
    """A part of a message's content; only text is used."""

    type: str
    text: str | None = None


class ChatMessage(msgspec.Struct):
    """A message; its content is a text, a list of parts, or absent (as with tool calls)."""

    role: str
    content: str | list[ContentPart] | None = None

    @property
    def text(self) -> str:
        """All text of the message."""
        if isinstance(self.content, list):
            return "".join(part.text or "" for part in self.content if part.type == "text")
        return self.content or ""


class ChatRequest(GenerationRequest, kw_only=True):
    """`POST /v1/chat/completions`."""

    messages: list[ChatMessage]

    @property
    def turns(self) -> list[PromptTurn]:
        """The messages as roles and texts."""
        return [PromptTurn(message.role, message.text) for message in self.messages]


class CompletionRequest(GenerationRequest, kw_only=True):
    """`POST /v1/completions`; if there are several prompts, the last one is echoed."""

    prompt: str | list[str]

    @property
    def turns(self) -> list[PromptTurn]:
        """Each prompt as a user's message."""
        prompts = [self.prompt] if isinstance(self.prompt, str) else self.prompt
        return [PromptTurn("user", prompt) for prompt in prompts]


@blueprint.post("/chat/completions")
async def chat_completions() -> Response:
    """Echo the last message; a thinking model answers with reasoning and a sample of Markdown."""
    current_gateway().stats.chat_requests += 1
    body = await read_body(ChatRequest)
    return _respond(
        body, compose_thinking(body) if body.model in THINKING_MODELS else compose(body, ChatAnswer)
    )


@blueprint.post("/completions")
async def completions() -> Response:
    """Echo the last prompt."""
    body = await read_body(CompletionRequest)
    return _respond(body, compose(body, TextAnswer))


def compose(body: GenerationRequest, shape: type[Answer]) -> Answer:
    """Build the echo of the last message."""
    return _compose(body, shape, [], split_pieces(echo_sentence(body.turns)))


def compose_thinking(body: ChatRequest) -> Answer:
    """Build an answer that begins with reasoning."""
    return _compose(body, ChatAnswer, *think(body.turns))


def _compose(body: GenerationRequest, shape: type[Answer], thoughts: list[str], words: list[str]) -> Answer:
    """Build an answer; a piece counts as a token for `max_tokens` and usage."""
    pieces = [*thoughts, *words]
    kept = pieces[: body.max_tokens]
    return shape(
        model=body.model,
        pieces=kept,
        thoughts=min(len(thoughts), len(kept)),
        truncated=len(kept) < len(pieces),
        prompt_tokens=sum(len(split_pieces(turn.text)) for turn in body.turns),
    )


def _respond(body: GenerationRequest, answer: Answer) -> Response:
    if body.stream:
        return stream_response(current_gateway(), answer.stream(include_usage=body.include_usage))
    return json_response(answer.whole())
