"""The decorators of a repair take functions of their stage alone, and return them unchanged."""

from collections.abc import Callable
from typing import assert_type

from proxy.wire.endpoints import Shape
from proxy.wire.repairs import Repairs, resolve
from proxy.wire.repairs.call import Call
from proxy.wire.repairs.registry import ReadIds, Repair, StreamState
from proxy.wire.repairs.shallow_json import Members


def decorate(repair: Repair) -> None:
    @repair.on_requests(Shape.CHAT, pattern=rb'"model"')
    def request(members: Members, read_ids: ReadIds) -> Members | None:
        return None

    @repair.on_responses(Shape.CHAT, Shape.COMPLETION)
    def response(members: Members, call: Call) -> Members | None:
        return None

    @repair.on_chunks(Shape.CHAT)
    def chunk(members: Members, state: StreamState) -> Members | list[Members] | None:
        return None

    assert_type(request, Callable[[Members, ReadIds], Members | None])
    assert_type(response, Callable[[Members, Call], Members | None])
    assert_type(chunk, Callable[[Members, StreamState], Members | list[Members] | None])

    @repair.on_requests(Shape.CHAT)  # type: ignore[arg-type]
    def of_a_response(members: Members, call: Call) -> Members | None:
        return None

    @repair.on_responses(Shape.CHAT)  # type: ignore[arg-type]
    def that_splits(members: Members, call: Call) -> list[Members]:
        return [members]

    repair.on_chunks("chat")  # type: ignore[arg-type]


def are_enabled(repair: Repair) -> None:
    repairs = resolve(["ragflow", "fill_delta"])
    assert_type(repairs, Repairs)
    assert_type(repair in repairs, bool)
    Repair("name", "It cures.", clients="RAGFlow")  # type: ignore[arg-type]
    Repair("name", "It cures.", clients=(), stages=("response", "chunk"))  # type: ignore[arg-type]
