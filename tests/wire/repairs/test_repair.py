"""A repair and its functions: the stages at which it runs, and the order."""

from proxy.wire.endpoints import Shape
from proxy.wire.repairs import Repair, Repairs
from proxy.wire.repairs.call import Call
from proxy.wire.repairs.repair import (
    ReadIds,
    StreamState,
    find_steps,
    on_chunks,
    on_requests,
    on_responses,
)
from proxy.wire.repairs.shallow_json import Members


@on_requests(Shape.CHAT, pattern=b"model")
def of_a_request(request: Members, _: ReadIds) -> Members | None:
    """A function that is only listed."""
    return request


@on_responses(Shape.CHAT, Shape.COMPLETION)
def of_a_response(response: Members, _: Call) -> Members | None:
    """A function that is only listed."""
    return response


@on_responses(Shape.CHAT)
def of_another(response: Members, _: Call) -> Members | None:
    """A function that is only listed."""
    return response


@on_chunks(Shape.CHAT)
def of_a_chunk(chunk: Members, _: StreamState) -> Members | None:
    """A function that is only listed."""
    return chunk


BOTH = Repair("both", "It cures.", of_a_response, of_a_chunk, clients=("all",))
WHOLE = Repair("whole", "It cures.", of_another, clients=("all",))
REQUEST = Repair("request", "It cures.", of_a_request, clients=("all",))
APART = Repair("apart", "It cures.", clients=("all",), stages=("stream", "request"))


def test_the_stages_of_a_repair_are_those_of_its_functions_and_those_that_it_names() -> None:
    assert BOTH.stages == ("response", "stream")
    assert WHOLE.stages == ("response",)
    assert APART.stages == ("request", "stream")


def test_the_functions_of_a_stage_run_in_the_order_of_the_repairs() -> None:
    assert find_steps(Repairs((BOTH, WHOLE)), "response", Shape.CHAT) == (of_a_response, of_another)
    assert find_steps(Repairs((WHOLE, BOTH)), "response", Shape.CHAT) == (of_another, of_a_response)


def test_the_functions_are_those_of_one_stage_and_shape() -> None:
    repairs = Repairs((BOTH, WHOLE, REQUEST, APART))
    assert find_steps(repairs, "request", Shape.CHAT) == (of_a_request,)
    assert find_steps(repairs, "response", Shape.COMPLETION) == (of_a_response,)
    assert find_steps(repairs, "stream", Shape.CHAT) == (of_a_chunk,)
    assert find_steps(repairs, "response", None) == ()
    assert find_steps(Repairs(), "response", Shape.CHAT) == ()


def test_repairs_are_falsy_if_empty_and_hashable() -> None:
    assert not Repairs()
    assert Repairs((BOTH,))
    assert {Repairs((BOTH, WHOLE)): 1}[Repairs((BOTH, WHOLE))] == 1
    assert BOTH in Repairs((BOTH,))
    assert WHOLE not in Repairs((BOTH,))


def test_only_repairs_of_requests_leave_responses_alone() -> None:
    assert not Repairs((REQUEST,)).change_responses
    assert Repairs((REQUEST, WHOLE)).change_responses
    assert Repairs((APART,)).change_responses
