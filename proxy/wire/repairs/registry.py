"""The registry of repairs by name, and of the sets of repairs that clients need.

A repair is declared next to its functions, which it decorates:

    FILL_DELTA = Repair("fill_delta", "Writes the delta ...", clients=("RAGFlow",), sets=("ragflow",))

    @FILL_DELTA.on_chunks(Shape.CHAT)
    def fill_delta(chunk: Members, state: StreamState) -> Members | None: ...

The functions of one stage run in the order of their declaration.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple, TypeVar

from proxy.wire.endpoints import Shape
from proxy.wire.repairs.call import Call
from proxy.wire.repairs.shallow_json import Members
from proxy.wire.repairs.tool_calls import ToolCalls

ReadIds = Callable[[list[int]], str]
"""Returns the text of token ids; raises InvalidRequest if they are not known."""

Stage = Literal["request", "response", "stream"]
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


@dataclass
class StreamState:
    """State that the repairs of one stream share from chunk to chunk."""

    call: Call
    tool_calls: dict[tuple[str, bytes], ToolCalls] = field(default_factory=dict)
    """The tool calls so far, by the repair that tracks them and the index of the choice."""
    withheld_usage: Members | None = None
    """A chunk with the usage that the caller asked for and that has not been sent yet."""


ChunkChange = Callable[[Members, StreamState], Members | list[Members] | None]
"""Returns the chunk or the chunks that replace a chunk, or None if nothing changes."""


class Step(NamedTuple):
    """One function of a repair."""

    repair: str
    stage: Stage
    shapes: frozenset[Shape]
    pattern: re.Pattern[bytes]
    """A request body that does not match is not parsed."""
    change: Callable[..., Any]
    """A `RequestChange`, `ResponseChange` or `ChunkChange`, according to the stage."""


_REPAIRS: Final[dict[str, "Repair"]] = {}
_STEPS: Final[list[Step]] = []


class Repair:
    """One repair.

    Args:
        name: The name that the settings use.
        cures: What it does, in one sentence.
        clients: The clients that need it, with versions if known.
        sets: The sets that it belongs to.
        stages: The stages of a repair that decorates no function for them.
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
        """The stages at which it runs."""
        found = self._stages | {step.stage for step in _STEPS if step.repair == self.name}
        order: tuple[Stage, ...] = ("request", "response", "stream")
        return tuple(stage for stage in order if stage in found)

    def on_requests(self, *shapes: Shape, pattern: bytes = b"") -> Callable[[RequestChange], RequestChange]:
        """Register a function that changes request bodies that match the regular expression."""
        return self._register("request", shapes, pattern)

    def on_responses(self, *shapes: Shape) -> Callable[[ResponseChange], ResponseChange]:
        """Register a function that changes whole responses."""
        return self._register("response", shapes)

    def on_chunks(self, *shapes: Shape) -> Callable[[ChunkChange], ChunkChange]:
        """Register a function that changes the chunks of streams."""
        return self._register("stream", shapes)

    def _register(
        self, stage: Stage, shapes: tuple[Shape, ...], pattern: bytes = b""
    ) -> Callable[[_Change], _Change]:
        def register(change: _Change) -> _Change:
            _STEPS.append(Step(self.name, stage, frozenset(shapes), re.compile(pattern), change))
            return change

        return register


@dataclass(frozen=True, slots=True)
class Repairs:
    """The repairs that are enabled; falsy if there are none."""

    names: tuple[str, ...] = ()
    """The names of single repairs, sorted."""

    def __bool__(self) -> bool:
        return bool(self.names)

    def __contains__(self, repair: Repair) -> bool:
        return repair.name in self.names

    @property
    def change_responses(self) -> bool:
        """Whether any of them applies to whole responses or streams."""
        return _change_responses(self.names)


@lru_cache(maxsize=512)
def _change_responses(names: tuple[str, ...]) -> bool:
    return any({"response", "stream"} & {*_REPAIRS[name].stages} for name in names)


@lru_cache(maxsize=512)
def find_steps(repairs: Repairs, stage: Stage, shape: Shape | None) -> tuple[Step, ...]:
    """Return the functions of the repairs for one stage and shape, in the order in which they run."""
    return tuple(
        step
        for step in _STEPS
        if step.stage == stage and step.repair in repairs.names and shape in step.shapes
    )


def all_repairs() -> Mapping[str, Repair]:
    """Return all repairs by name, sorted."""
    return dict(sorted(_REPAIRS.items()))


def all_sets() -> Mapping[str, tuple[str, ...]]:
    """Return the sorted names of the repairs of each set."""
    return {
        client: tuple(name for name, repair in all_repairs().items() if client in repair.sets)
        for client in CLIENTS
    }


def resolve(names: Iterable[str]) -> Repairs:
    """Return the repairs that these names of sets and single repairs refer to.

    Raises:
        KeyError: A name is neither a set nor a repair.
    """
    sets = all_sets()
    wanted: set[str] = set()
    for name in names:
        wanted.update(sets[name] if name in sets else (_REPAIRS[name].name,))
    return Repairs(tuple(sorted(wanted)))
