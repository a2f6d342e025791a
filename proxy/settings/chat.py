"""`[chat]`: the web chat, what it asks its model, and what a visitor may do."""

from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from proxy.secret import Secret
from proxy.settings.fields import Count, Name, PlainText, PositiveSeconds, Rate, WholeNumber, secret
from proxy.settings.problems import Problem
from proxy.settings.recipe_values import Json, json_value
from proxy.settings.section import Checked, Section, Table, refuse, refuse_all
from proxy.settings.urls import origin

_OWN_FIELDS = ("messages", "model", "stream", "tools", "user")
"""What the chat writes into its requests itself, or has a key of its own for."""


def _optional_secret(value: object) -> Secret | None:
    return None if value in {None, ""} else secret(value)


def _tool(value: object) -> Json:
    if not isinstance(value, dict):
        refuse('must be a table, such as { type = "web_search" }')
    return json_value(value)


OptionalSecret = Annotated[Secret | None, Checked(_optional_secret)]
Origin = Annotated[str, AfterValidator(origin)]


class Chat(Section):
    """The web chat at /chat. Without this section there is none."""

    upstream: str | None = None
    """A name in `[upstreams]`; unset, `[routes]` decides as for everybody."""
    model: Name = "x1"
    rate: Rate = "2/second"
    """What a visitor may send in a time, counted by session and by address."""
    secret: OptionalSecret = None
    """Signs the sessions. Unset or empty, one is drawn at every start."""
    system: PlainText | None = None
    """A system prompt that stands before every dialogue."""
    turns: WholeNumber = 6
    """How many questions with their answers the model is told again; 0 is none."""
    user: PlainText | None = None
    tools: tuple[Annotated[Json, Checked(_tool)], ...] = ()
    options: Table[str, Annotated[Json, Checked(json_value)]] = Field(default_factory=dict)
    """Any other field of the request, such as temperature."""
    max_prompt_chars: Count = 8000
    max_streams: Count = 200
    """Streams of one address at once: an office may share one."""
    max_dialogues: Count = 20
    """Answers for one address at once."""
    max_seconds: PositiveSeconds = 600
    """How long one answer may take."""
    keep: Count = 500
    """Events of a channel that are kept, so that a page that comes back shows them."""
    keep_seconds: PositiveSeconds = 3600
    """How long they are kept after the last one, and with them the memory of the dialogue."""
    public_channels: tuple[Name, ...] = ()
    """Channels that everybody may read and nobody asks in: what a flask-sse site tells all its visitors."""
    origins: tuple[Origin, ...] = ()
    """Pages of other origins that may use the chat, beside those of its own host."""

    @model_validator(mode="after")
    def _writes_each_field_once(self) -> Self:
        problems = [*self._doubled()]
        if problems:
            refuse_all(problems)
        return self

    def _doubled(self) -> Iterator[Problem]:
        for name in _OWN_FIELDS:
            if name in self.options:
                words = (
                    "is a key of [chat] itself" if name in type(self).model_fields else "is the chat's own"
                )
                yield Problem(("options", name), words)
