"""The repairs by name, and the sets of repairs that clients need.

A repair is declared beside the functions that do its work, and decorates them:

    FILL_DELTA = Repair("fill_delta", "Writes the delta ...", clients=("RAGFlow",), sets=("ragflow",))

    @FILL_DELTA.on_chunks(Shape.CHAT)
    def fill_delta(chunk: Members, state: StreamState) -> list[Members] | None: ...

The functions of one stage run in the order in which they are declared.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple, TypeVar

from proxy.wire.endpoints import Shape
from proxy.wire.repairs.call import Call
from proxy.wire.repairs.shallow_json import Members
from proxy.wire.repairs.tool_calls import ToolCalls

ReadIds = Callable[[list[int]], str]
"""Returns the text of token ids; raises InvalidRequest if they are not known."""

Stage = Literal["request", "answer", "stream"]
_Change = TypeVar("_Change", bound=Callable[..., object])

BARE_LIST: Final = ""
"""Where the items of an answer stand that is a list and not an object."""
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
"""The names of the sets: one for each client, and `common` for what every client needs."""


RequestChange = Callable[[Members, ReadIds], Members | None]
"""Returns the new request, or None if nothing changes."""
AnswerChange = Callable[[Members, Call], Members | None]
"""Returns the new answer, or None if nothing changes."""


@dataclass
class StreamState:
    """What the repairs of one stream remember from chunk to chunk.

    Args:
        call: What the caller asked for.
    """

    call: Call
    tool_calls: dict[tuple[str, bytes], ToolCalls] = field(default_factory=dict)
    """The tool calls so far, as each repair sees them in each choice."""
    withheld_usage: Members | None = None
    """A chunk with the usage that the caller asked for and has not been sent yet."""


ChunkChange = Callable[[Members, StreamState], Sequence[Members] | None]
"""Returns the chunks that replace a chunk, or None if nothing changes."""


class Step(NamedTuple):
    """One function of a repair."""

    repair: str
    stage: Stage
    shapes: frozenset[Shape]
    sign: re.Pattern[bytes]
    """Of requests: a body without a match is not parsed."""
    change: Callable[..., Any]


_REPAIRS: Final[dict[str, "Repair"]] = {}
_STEPS: Final[list[Step]] = []


class Repair:
    """One repair.

    Args:
        name: As it is written in the settings.
        cures: What it does, in one sentence.
        clients: The clients that need it, with versions where they are known.
        sets: The sets that it belongs to.
        stages: What it looks at, if that does not follow from the functions that it decorates.
    """

    def __init__(
        self,
        name: str,
        cures: str,
        *,
        clients: tuple[str, ...],
        sets: Iterable[str] = (),
        stages: tuple[Stage, ...] = (),
    ) -> None:
        self.name = name
        self.cures = cures
        self.clients = clients
        self.sets = frozenset(sets)
        self._stages = frozenset[Stage](stages)
        _REPAIRS[name] = self

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What it looks at: requests, whole answers, streams."""
        found = self._stages | {step.stage for step in _STEPS if step.repair == self.name}
        order: tuple[Stage, ...] = ("request", "answer", "stream")
        return tuple(stage for stage in order if stage in found)

    def on_requests(self, *shapes: Shape, sign: bytes = b"") -> Callable[[RequestChange], RequestChange]:
        """Register a function that changes request bodies; a body without the sign is not parsed."""
        return self._register("request", shapes, sign)

    def on_answers(self, *shapes: Shape) -> Callable[[AnswerChange], AnswerChange]:
        """Register a function that changes whole answers."""
        return self._register("answer", shapes)

    def on_chunks(self, *shapes: Shape) -> Callable[[ChunkChange], ChunkChange]:
        """Register a function that changes the chunks of streams."""
        return self._register("stream", shapes)

    def _register(
        self, stage: Stage, shapes: tuple[Shape, ...], sign: bytes = b""
    ) -> Callable[[_Change], _Change]:
        def register(change: _Change) -> _Change:
            _STEPS.append(Step(self.name, stage, frozenset(shapes), re.compile(sign), change))
            return change

        return register


@dataclass(frozen=True, slots=True)
class Repairs:
    """The repairs that are on; falsy without any.

    Args:
        names: Sorted, without sets.
    """

    names: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.names)

    def __contains__(self, repair: Repair) -> bool:
        return repair.name in self.names

    @property
    def change_responses(self) -> bool:
        """Whether any of them looks at whole answers or streams."""
        return _change_responses(self.names)


@lru_cache(maxsize=512)
def _change_responses(names: tuple[str, ...]) -> bool:
    return any({"answer", "stream"} & {*_REPAIRS[name].stages} for name in names)


@lru_cache(maxsize=512)
def find_steps(repairs: Repairs, stage: Stage, shape: Shape | None) -> tuple[Step, ...]:
    """Return the functions that repairs run at a stage for a shape, in their order."""
    return tuple(
        step
        for step in _STEPS
        if step.stage == stage and step.repair in repairs.names and shape in step.shapes
    )


def all_repairs() -> Mapping[str, Repair]:
    """Return every repair by its name, sorted."""
    return dict(sorted(_REPAIRS.items()))


def all_sets() -> Mapping[str, tuple[str, ...]]:
    """Return the names of the repairs that each client needs, sorted."""
    return {
        client: tuple(name for name, repair in all_repairs().items() if client in repair.sets)
        for client in CLIENTS
    }


def resolve(names: Iterable[str]) -> Repairs:
    """Turn on repairs by name, sets included.

    Raises:
        KeyError: A name is neither a set nor a repair.
    """
    sets = all_sets()
    wanted: set[str] = set()
    for name in names:
        wanted.update(sets[name] if name in sets else (_REPAIRS[name].name,))
    return Repairs(tuple(sorted(wanted)))
