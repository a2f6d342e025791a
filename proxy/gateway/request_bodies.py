"""Request bodies as types: what is read of them and what holds where nothing is said; unknown fields pass."""

import re
from typing import Annotated, Literal, TypeVar

import msgspec
from quart import request

from proxy.gateway.echo import Turn
from proxy.gateway.errors import GatewayError
from proxy.gateway.state import current_gateway

CHAT_MODEL = "mock-gpt-model"
EMBEDDING_MODEL = "mock-embedding-model"
MAX_DIMENSIONS = 4096

_PATH = re.compile(r"at `\$\.([^`]++)`$")
_MISSING = re.compile(r"missing required field `([^`]++)`$")


class StreamOptions(msgspec.Struct):
    """OpenAI's `stream_options`."""

    include_usage: bool | None = False


class GenerationRequest(msgspec.Struct, kw_only=True):
    """What chat and plain completions share; the defaults are the echo article's."""

    model: str = CHAT_MODEL
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = 512
    temperature: float | None = 0.1
    stream: bool | None = False
    stream_options: StreamOptions | None = None

    @property
    def include_usage(self) -> bool:
        """Whether a stream shall end with its token counts."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def turns(self) -> list[Turn]:
        """The dialogue up to now."""
        raise NotImplementedError


class ContentPart(msgspec.Struct):
    """A part of a message's content; only text is read of it."""

    type: str
    text: str | None = None


class ChatMessage(msgspec.Struct):
    """A message: its content is a text, a list of parts, or nothing (as beside tool calls)."""

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
    def turns(self) -> list[Turn]:
        """The messages as roles and texts."""
        return [Turn(message.role, message.text) for message in self.messages]


class CompletionRequest(GenerationRequest, kw_only=True):
    """`POST /v1/completions`: of several prompts the last is echoed."""

    prompt: str | list[str]

    @property
    def turns(self) -> list[Turn]:
        """Each prompt as a user's message."""
        prompts = [self.prompt] if isinstance(self.prompt, str) else self.prompt
        return [Turn("user", prompt) for prompt in prompts]


class EmbeddingRequest(msgspec.Struct, kw_only=True):
    """`POST /v1/embeddings`: texts, or texts already cut into token numbers."""

    input: str | list[str | int | list[int]]
    model: str = EMBEDDING_MODEL
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=MAX_DIMENSIONS)] | None = None
    encoding_format: Literal["float", "base64"] | None = "float"


BodyT = TypeVar("BodyT", bound=msgspec.Struct)


async def read_body(kind: type[BodyT]) -> BodyT:
    """Read the current request's body whole, keep it for the tests to see, and check it."""
    body = await request.get_data(cache=False, as_text=False, parse_form_data=False)
    current_gateway().stats.last_request_body = body
    return parse_body(body, kind)


def parse_body(body: bytes, kind: type[BodyT]) -> BodyT:
    """Check a JSON body against its type.

    Raises:
        GatewayError: 400 that names the field at fault.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        found = _PATH.search(str(error)) or _MISSING.search(str(error))
        raise GatewayError(400, str(error), param=found[1] if found else None) from error
    except (ValueError, RecursionError) as error:  # malformed, not UTF-8, nested without end
        raise GatewayError(400, f"the body is not valid JSON: {error}") from error
