"""Chat and plain completions: the last message comes back, whole or streamed, after some thought or none."""

from quart import Blueprint, Response

from proxy.gateway.answers import Answer, ChatAnswer, TextAnswer
from proxy.gateway.echo import echo_sentence, split_pieces
from proxy.gateway.oddities import choose
from proxy.gateway.request_bodies import ChatRequest, CompletionRequest, GenerationRequest, read_body
from proxy.gateway.state import current_gateway
from proxy.gateway.streaming import stream_response
from proxy.gateway.thinking import THINKING_MODELS, ThinkingAnswer, think

blueprint = Blueprint("completions", __name__, url_prefix="/v1")


@blueprint.post("/chat/completions")
async def chat_completions() -> Response:
    """Echo a dialogue's last message; a thinking model also shows what Markdown it knows."""
    current_gateway().stats.chat_requests += 1
    asked = await read_body(ChatRequest)
    return _respond(
        asked, compose_thinking(asked) if asked.model in THINKING_MODELS else compose(asked, ChatAnswer)
    )


@blueprint.post("/completions")
async def completions() -> Response:
    """Echo the last prompt."""
    asked = await read_body(CompletionRequest)
    return _respond(asked, compose(asked, TextAnswer))


def _respond(asked: GenerationRequest, answer: Answer) -> Response:
    gateway = current_gateway()
    odd = choose(gateway, asked.model)
    if asked.stream and odd.instead is None:
        stream = odd.streamed(answer.stream(include_usage=asked.include_usage))
        return stream_response(gateway, stream, odd.options(gateway.options))
    return odd.respond(answer.whole())


def compose(asked: GenerationRequest, shape: type[Answer]) -> Answer:
    """Answer a request: `max_tokens` counts pieces."""
    turns = asked.turns
    pieces = split_pieces(echo_sentence(turns))
    kept = pieces[: asked.max_tokens]
    return shape(
        model=asked.model,
        pieces=kept,
        truncated=len(kept) < len(pieces),
        prompt_tokens=sum(len(split_pieces(turn.text)) for turn in turns),
    )


def compose_thinking(asked: ChatRequest) -> ThinkingAnswer:
    """Think first, then answer; `max_tokens` counts the pieces of both."""
    turns = asked.turns
    thoughts, answer = think(turns)
    pieces = [*thoughts, *answer]
    kept = pieces[: asked.max_tokens]
    return ThinkingAnswer(
        model=asked.model,
        pieces=kept,
        thoughts=min(len(thoughts), len(kept)),
        truncated=len(kept) < len(pieces),
        prompt_tokens=sum(len(split_pieces(turn.text)) for turn in turns),
    )
