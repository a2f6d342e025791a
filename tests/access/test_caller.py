"""A caller's key: which endpoints, models and messages it allows."""

import pytest

from proxy.access import Caller
from proxy.errors import EndpointForbidden, ModelForbidden
from proxy.settings import ANY_MODEL, CallerKey
from proxy.wire.endpoints import Endpoint
from proxy.wire.paths import find_target
from proxy.wire.request_json import MODEL_CHARACTERS_MAX

LIMITED = Caller("app", models=("gpt-*", "bge-m3"))


def endpoint_of(path: str, method: str = "POST") -> Endpoint:
    """Return the endpoint of a path."""
    return find_target(method, path.encode()).endpoint


async def test_a_key_without_limits_allows_every_model_and_endpoint() -> None:
    caller = Caller.of(CallerKey(name="app", sha256="0" * 64))
    assert caller == Caller("app", models=ANY_MODEL)
    assert not caller.is_limited
    assert caller.may_use("any\x00thing")
    caller.check_endpoint(endpoint_of("/v1/batches"))
    await caller.check_message(b'{"model": "other"}')


def test_rates_and_budgets_are_parsed_once() -> None:
    caller = Caller.of(CallerKey(name="app", sha256="0" * 64, rate="600/minute", tokens="1000/day"))
    assert caller.rate is not None
    assert caller.budget is not None
    assert (caller.rate.amount, caller.rate.get_expiry()) == (600, 60)
    assert (caller.budget.amount, caller.budget.get_expiry()) == (1000, 86400)


@pytest.mark.parametrize(
    ("model", "allowed"),
    [("gpt-4o", True), ("bge-m3", True), ("bge-m3-large", False), ("GPT-4o", False), ("gpt-4o\n", False)],
)
def test_a_pattern_covers_the_whole_name_in_its_case(model: str, *, allowed: bool) -> None:
    assert LIMITED.may_use(model) is allowed


async def test_a_name_that_is_too_long_to_be_compared_is_not_allowed() -> None:
    assert LIMITED.may_use("gpt-".ljust(MODEL_CHARACTERS_MAX, "x"))
    model = "gpt-".ljust(MODEL_CHARACTERS_MAX + 1, "x")
    assert not LIMITED.may_use(model)
    with pytest.raises(ModelForbidden):
        await LIMITED.check_message(f'{{"model": "{model}"}}')


def test_only_listed_endpoints_are_allowed() -> None:
    caller = Caller("app", endpoints=("embeddings",))
    caller.check_endpoint(endpoint_of("/v1/embeddings"))
    with pytest.raises(EndpointForbidden):
        caller.check_endpoint(endpoint_of("/v1/chat/completions"))
    Caller("app", endpoints=("*",)).check_endpoint(endpoint_of("/v1/chat/completions"))


def test_a_key_limited_to_models_may_use_no_endpoint_that_hides_them_unless_it_is_listed() -> None:
    batches = endpoint_of("/v1/batches")
    with pytest.raises(EndpointForbidden, match="do not name"):
        LIMITED.check_endpoint(batches)
    Caller("app", models=("gpt-*",), endpoints=("batches",)).check_endpoint(batches)


@pytest.mark.parametrize(
    "message",
    [
        '{"session": {"model": "other"}}',
        b'{"model": "gpt-4o", "x": {"model": "other"}}',
        '{"model": "other"}'.encode("utf-16"),
        '{"model": "other"}'.encode("utf-32-be"),
    ],
)
async def test_a_message_must_name_no_other_model(message: str | bytes) -> None:
    await LIMITED.check_message('{"session": {"model": "gpt-4o"}}')
    await LIMITED.check_message('{"type": "response.create"}')
    with pytest.raises(ModelForbidden):
        await LIMITED.check_message(message)
