"""The decorators of a repair's functions take functions of their stage alone."""

from typing import assert_type

from proxy.wire.endpoints import Shape
from proxy.wire.repairs import Repairs, resolve
from proxy.wire.repairs.call import Call
from proxy.wire.repairs.repair import (
    ChunkChange,
    ReadIds,
    Repair,
    RequestChange,
    ResponseChange,
    Step,
    StreamState,
    on_chunks,
    on_requests,
    on_responses,
)
from proxy.wire.repairs.shallow_json import Members


def decorate() -> None:
    @on_requests(Shape.CHAT, pattern=rb'"model"')
    def request(members: Members, read_ids: ReadIds) -> Members | None:
        return None

    @on_responses(Shape.CHAT, Shape.COMPLETION)
    def response(members: Members, call: Call) -> Members | None:
        return None

    @on_chunks(Shape.CHAT)
    def chunk(members: Members, state: StreamState) -> Members | list[Members] | None:
        return None

    assert_type(request, Step[RequestChange])
    assert_type(response, Step[ResponseChange])
    assert_type(chunk, Step[ChunkChange])
    Repair("name", "It cures.", request, response, chunk, clients=())

    @on_requests(Shape.CHAT)  # type: ignore[arg-type]
    def of_a_response(members: Members, call: Call) -> Members | None:
        return None

    @on_responses(Shape.CHAT)  # type: ignore[arg-type]
    def that_splits(members: Members, call: Call) -> list[Members]:
        return [members]

    on_chunks("chat")  # type: ignore[arg-type]


def are_enabled(repair: Repair) -> None:
    repairs = resolve(["ragflow", "fill_delta"])
    assert_type(repairs, Repairs)
    assert_type(repair in repairs, bool)
    Repair("name", "It cures.", clients="RAGFlow")  # type: ignore[arg-type]
    Repair("name", "It cures.", clients=(), stages=("response", "chunk"))  # type: ignore[arg-type]
    Repair("name", "It cures.", are_enabled, clients=())  # type: ignore[arg-type]
