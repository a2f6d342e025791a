"""A repair: what it does, which clients need it, and its functions.

A function is decorated with its stage and its shapes, and the repair names its functions:

    @on_chunks(Shape.CHAT)
    def fill_delta(chunk: Members, state: StreamState) -> Members | None: ...

    FILL_DELTA = Repair("fill_delta", "Writes the delta ...", fill_delta, clients=("RAGFlow",))

    REPAIRS = (..., FILL_DELTA)

`catalogue.py` joins the repairs of all modules.
"""

import re
from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any, Final, Generic, Literal, TypeVar, get_args

import msgspec

from proxy.wire.endpoints import Shape
from proxy.wire.repairs.call import Call
from proxy.wire.repairs.shallow_json import Members
from proxy.wire.repairs.tool_calls import ToolCalls

ReadIds = Callable[[list[int]], str]
"""Returns the text of token ids; raises InvalidRequest if they are not known."""

Stage = Literal["request", "response", "stream"]
STAGES: Final[tuple[Stage, ...]] = get_args(Stage)
_Change = TypeVar("_Change", bound=Callable[..., object])

BARE_LIST: Final = ""
"""The member that holds the items of a response that is a list instead of an object."""
CLIENTS: Final = (
    "common",
    "ragflow",
    "dify",
    "open_webui",
    "fastgpt",
    "langchain",
    "llamaindex",
    "cherry_studio",
    "continue",
)
"""The names of the sets: one for each client, and `common` for repairs that every client needs."""


RequestChange = Callable[[Members, ReadIds], Members | None]
"""Returns the new request, or None if nothing changes."""
ResponseChange = Callable[[Members, Call], Members | None]
"""Returns the new response, or None if nothing changes."""


class StreamState(msgspec.Struct):
    """State that the repairs of one stream share from chunk to chunk."""

    call: Call
    tool_calls: dict[tuple[str, bytes], ToolCalls] = msgspec.field(default_factory=dict)
    """The tool calls so far, by the repair that tracks them and the index of the choice."""
    withheld_usage: Members | None = None
    """A chunk with the usage that the caller asked for and that has not been sent yet."""
    usage_sent: bool = False
    """Whether a caller who did not ask for the usage has got it with a finish_reason."""


ChunkChange = Callable[[Members, StreamState], Members | list[Members] | None]
"""Returns the chunk or the chunks that replace a chunk, or None if nothing changes."""


class Step(msgspec.Struct, Generic[_Change], frozen=True):
    """One function of a repair: a `RequestChange`, `ResponseChange` or `ChunkChange`, as its stage says."""

    stage: Stage
    shapes: frozenset[Shape]
    change: _Change
    pattern: re.Pattern[bytes] = re.compile(b"")
    """A request body that does not match is not parsed."""


def on_requests(*shapes: Shape, pattern: bytes = b"") -> Callable[[RequestChange], Step[RequestChange]]:
    """Mark a function that changes request bodies that match the regular expression."""
    return lambda change: Step("request", frozenset(shapes), change, re.compile(pattern))


def on_responses(*shapes: Shape) -> Callable[[ResponseChange], Step[ResponseChange]]:
    """Mark a function that changes whole responses."""
    return lambda change: Step("response", frozenset(shapes), change)


def on_chunks(*shapes: Shape) -> Callable[[ChunkChange], Step[ChunkChange]]:
    """Mark a function that changes the chunks of streams."""
    return lambda change: Step("stream", frozenset(shapes), change)


class Repair:
    """One repair.

    Args:
        name: The name that the settings use.
        cures: What it does, in one sentence.
        steps: Its decorated functions. Those of one stage run in this order.
        clients: The clients that need it, with versions if known.
        sets: The sets that it belongs to.
        stages: Stages at which other code calls it, if it has no functions for them.
    """

    def __init__(
        self,
        name: str,
        cures: str,
        *steps: Step[Any],
        clients: tuple[str, ...],
        sets: tuple[str, ...] = (),
        stages: tuple[Stage, ...] = (),
    ) -> None:
        self.name: Final = name
        self.cures: Final = cures
        self.steps: Final = steps
        self.clients: Final = clients
        self.sets: Final = frozenset(sets)
        found = {*stages, *(step.stage for step in steps)}
        self.stages: Final = tuple(stage for stage in STAGES if stage in found)


class Repairs(msgspec.Struct, frozen=True, dict=True):
    """The repairs that are enabled; falsy if there are none."""

    enabled: tuple[Repair, ...] = ()
    """In the order in which they run."""

    def __bool__(self) -> bool:
        return bool(self.enabled)

    def __contains__(self, repair: Repair) -> bool:
        return repair in self.enabled

    @cached_property
    def change_responses(self) -> bool:
        """Whether any of them applies to whole responses or streams."""
        return any(repair.stages != ("request",) for repair in self.enabled)


@lru_cache(maxsize=512)
def find_steps(repairs: Repairs, stage: Stage, shape: Shape | None) -> tuple[Step[Any], ...]:
    """Return the functions of the repairs for one stage and shape, in the order in which they run."""
    return tuple(
        step
        for repair in repairs.enabled
        for step in repair.steps
        if step.stage == stage and shape in step.shapes
    )
