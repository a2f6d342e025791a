"""`[chat]`: the web chat, its requests to the model, and the limits for visitors."""

from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from proxy.secret import Secret
from proxy.settings.fields import (
    Count,
    Name,
    PlainText,
    PositiveSeconds,
    Rate,
    WholeNumber,
    origin,
    secret,
)
from proxy.settings.recipe_values import Json, json_value
from proxy.settings.section import Checked, Problem, Section, Table, reject, reject_all

_RESERVED_OPTIONS = ("messages", "model", "stream", "tools", "user")
"""Fields of the request that the chat sets itself, or that have a key of their own."""


def _optional_secret(value: object) -> Secret | None:
    return None if value in {None, ""} else secret(value)


def _tool(value: object) -> Json:
    if not isinstance(value, dict):
        reject('must be a table, such as { type = "web_search" }')
    return json_value(value)


OptionalSecret = Annotated[Secret | None, Checked(_optional_secret)]
Origin = Annotated[str, AfterValidator(origin)]


class Chat(Section):
    """The web chat at /chat. It exists only if this section does."""

    upstream: str | None = None
    """A name in `[upstreams]`; by default `[routes]` decides."""
    model: Name = "x1"
    models: tuple[Name, ...] = ()
    """Models among which visitors may choose, in this order; empty for `model` alone."""
    title: PlainText | None = None
    """The title of the page; by default "Chat" in the language of the visitor."""
    rate: Rate = "2/second"
    """The rate limit for messages, per session and per address."""
    secret: OptionalSecret = None
    """Signs the sessions. If it is unset or empty, a random one is generated at every start."""
    system: PlainText | None = None
    """The system prompt of every dialogue."""
    turns: WholeNumber = 6
    """The number of previous questions and answers that are sent to the model again."""
    user: PlainText | None = None
    tools: tuple[Annotated[Json, Checked(_tool)], ...] = ()
    options: Table[str, Annotated[Json, Checked(json_value)]] = Field(default_factory=dict)
    """Other fields of the request, such as temperature."""
    max_prompt_chars: Count = 8000
    max_streams: Count = 200
    """Concurrent streams per address. An office may share one address."""
    max_dialogues: Count = 20
    """Concurrent answers per address."""
    max_seconds: PositiveSeconds = 600
    """The time limit for an answer."""
    keep: Count = 500
    """The number of questions per channel that a page can receive again, with their answers."""
    keep_bytes: Count = 4 << 20
    """The size of the events per channel that a page can receive again."""
    keep_seconds: PositiveSeconds = 3600
    """How long they, and the history of the dialogue, are kept after the last event."""
    public_channels: tuple[Name, ...] = ()
    """Read-only channels that all visitors may read, such as the announcements of a flask-sse site."""
    origins: tuple[Origin, ...] = ()
    """Other origins whose pages may use the chat."""

    @model_validator(mode="after")
    def _writes_each_field_once(self) -> Self:
        reject_all(self._reserved_options())
        return self

    @model_validator(mode="after")
    def _offers_its_own_model(self) -> Self:
        reject_all(self._missing_model())
        return self

    def _missing_model(self) -> Iterator[Problem]:
        if self.models and self.model not in self.models:
            yield Problem(("models",), f'does not contain the default model "{self.model}"')

    def _reserved_options(self) -> Iterator[Problem]:
        for name in _RESERVED_OPTIONS:
            if name in self.options:
                is_key = name in type(self).model_fields
                yield Problem(
                    ("options", name), "is a key of [chat]" if is_key else "is set by the chat itself"
                )
