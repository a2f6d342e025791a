"""Which upstream serves a request: by model, by the longest named endpoint, by weights, or by default."""

from collections import Counter
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.access import Caller
from proxy.errors import Unreachable
from proxy.secret import Secret
from proxy.settings import Access, CallerKey, ModelRoute, Routes, Settings, Timeouts, Upstream
from proxy.upstream.client import UpstreamClient
from proxy.upstream.routing import ANYBODY, Balance, Route, Routing
from proxy.wire.endpoints import CHAT_COMPLETIONS, EMBEDDINGS, OTHER, Endpoint
from tests.endpoints import endpoint_of

NAMES = ("main", "embed", "lists", "special")
CLIENTS = {
    name: cast(UpstreamClient, SimpleNamespace(running=0)) for name in NAMES
}  # is chosen, but never called


def routing_of(endpoints: Mapping[str, str]) -> Routing:
    """Return a routing with these endpoints, whose upstreams have distinct timeouts."""
    settings = Settings.model_construct(
        access=Access.model_construct(),
        routes=Routes(default="main", endpoints=dict(endpoints)),
        upstreams={
            name: Upstream(base_url=f"http://{name}.test/v1", timeouts=Timeouts(idle=number + 1))
            for number, name in enumerate(NAMES)
        },
    )
    return Routing(settings, CLIENTS)


ENDPOINTS = {
    "embeddings": "embed",
    "models": "lists",
    "audio": "special",
    "audio/transcriptions": "lists",
    "chat/completions": "special",
}


@pytest.mark.parametrize(
    ("path", "upstream"),
    [
        ("embeddings", "embed"),
        ("embeddings/x", "embed"),
        ("audio/speech", "special"),
        ("audio/voices/v-1", "special"),
        ("audio/transcriptions", "lists"),
        ("audio", "special"),
        ("models", "lists"),
        ("models/gpt-4o", "lists"),
        ("models/a/b/c", "lists"),
        ("chat/completions", "special"),
        ("chat/completions/id/messages", "special"),
        ("chat", "main"),
        ("completions", "main"),
        ("chat/other", "main"),
        ("embeddings2", "main"),
        ("x/embeddings", "main"),
        ("", "main"),
        ("never/heard/of", "main"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "OPTIONS"])
def test_the_longest_configured_prefix_decides(method: str, path: str, upstream: str) -> None:
    assert routing_of(ENDPOINTS).choose(endpoint_of(path, method)).upstream == upstream


@pytest.mark.parametrize(("endpoint", "name"), [(EMBEDDINGS, "embed"), (OTHER, "main")])
def test_a_route_has_the_client_and_the_timeouts_of_its_upstream(endpoint: Endpoint, name: str) -> None:
    route = routing_of(ENDPOINTS).choose(endpoint)
    assert route.endpoint == endpoint
    assert route.client is CLIENTS[name]
    assert route.timeouts.idle == NAMES.index(name) + 1


@pytest.mark.parametrize("endpoint", [CHAT_COMPLETIONS, EMBEDDINGS, OTHER])
def test_without_configured_endpoints_everything_goes_to_the_default(endpoint: Endpoint) -> None:
    assert routing_of({}).choose(endpoint).upstream == "main"


def by_model(*routes: Mapping[str, str]) -> Routing:
    """Return a routing by models in addition to that by endpoints."""
    settings = Settings.model_construct(
        access=Access.model_construct(),
        routes=Routes(
            default="main",
            endpoints={"embeddings": "embed"},
            models=tuple(ModelRoute.model_validate(route) for route in routes),
        ),
        upstreams={name: Upstream(base_url=f"http://{name}.test/v1") for name in NAMES},
    )
    return Routing(settings, CLIENTS)


@pytest.mark.parametrize(
    ("endpoint", "model", "upstream", "rename"),
    [
        (CHAT_COMPLETIONS, "bge-m3", "special", "bge-m3-corp"),
        (EMBEDDINGS, "bge-m3", "special", "bge-m3-corp"),
        (EMBEDDINGS, "bge-large", "lists", None),
        (EMBEDDINGS, "BGE-large", "embed", None),
        (EMBEDDINGS, "text-embedding", "embed", None),
        (EMBEDDINGS, None, "embed", None),
        (CHAT_COMPLETIONS, "[x]", "main", None),
    ],
)
def test_the_first_model_route_that_fits_counts_before_the_endpoint(
    endpoint: Endpoint, model: str | None, upstream: str, rename: str | None
) -> None:
    routing = by_model(
        {"match": "bge-m3", "upstream": "special", "rename": "bge-m3-corp"},
        {"match": "bge-*", "upstream": "lists"},
        {"match": "bge-large", "upstream": "main"},
    )
    route = routing.choose(endpoint, model)
    assert (route.upstream, route.rename, route.endpoint) == (upstream, rename, endpoint)


def plan_of(
    upstreams: Mapping[str, Mapping[str, object]], default: object, before: Routing | None = None
) -> Routing:
    """Return a routing of every request to a target, with these settings of upstreams."""
    settings = Settings.model_construct(
        access=Access.model_construct(
            keys=(
                CallerKey(name="slow", key=Secret("sk-1"), heartbeat=0),
                CallerKey(name="calm", key=Secret("sk-2"), heartbeat=9),
            )
        ),
        routes=Routes.model_validate({"default": default}),
        upstreams={
            name: Upstream.model_validate({"base_url": f"http://{name}.test/v1", **section})
            for name, section in upstreams.items()
        },
    )
    return Routing(
        settings, {name: cast(UpstreamClient, SimpleNamespace(running=0)) for name in upstreams}, before
    )


def names(routes: Sequence[Route]) -> str:
    """Return the upstreams of a plan."""
    return " ".join(route.upstream for route in routes)


FOUR: Mapping[str, Mapping[str, object]] = {
    "a": {"fallback": "c"},
    "b": {"fallback": "c"},
    "c": {"fallback": "d"},
    "d": {},
}


def test_a_plan_lists_the_peers_then_their_fallbacks_each_once() -> None:
    routing = plan_of(FOUR, {"a": 2, "b": 1})
    assert [names(routing.plan(CHAT_COMPLETIONS)) for _ in range(3)] == ["a b c d", "b a c d", "a b c d"]


def test_a_plan_skips_open_circuits_unless_all_are_open() -> None:
    routing = plan_of(FOUR, "a")
    plan = routing.plan(CHAT_COMPLETIONS)

    def fail(route: Route) -> None:
        for _ in range(5):
            with route.health.attempt() as end:
                end.error = Unreachable()

    fail(plan[0])
    assert names(routing.plan(CHAT_COMPLETIONS)) == "c d"
    fail(plan[1])
    fail(plan[2])
    assert names(routing.plan(CHAT_COMPLETIONS)) == "d"  # nothing follows it, so it has no circuit
    assert [reading.circuit for reading in routing.readings()] == ["opened", None, "opened", None]


def test_the_health_of_an_unchanged_upstream_is_kept() -> None:
    before = plan_of(FOUR, "a")
    for _ in range(5):
        with before.choose(CHAT_COMPLETIONS).health.attempt() as end:
            end.error = Unreachable()
    changed = {**FOUR, "c": {"fallback": "d", "heartbeat": 3}}
    after = plan_of(changed, "a", before)
    assert [reading.circuit for reading in after.readings()] == ["opened", None, "closed", None]
    assert after.readings()[0].attempts == {"upstream_unreachable": 5}


def test_models_have_other_names_at_other_upstreams() -> None:
    upstreams: dict[str, dict[str, object]] = {
        "a": {"fallback": "b"},
        "b": {"renames": {"gpt-4o*": "qwen-max", "gpt-*": "qwen-turbo"}},
    }
    routing = plan_of(upstreams, "a")
    for model, rename in (("gpt-4o-mini", "qwen-max"), ("gpt-5", "qwen-turbo"), ("x1", None), (None, None)):
        assert [route.rename for route in routing.plan(CHAT_COMPLETIONS, model)] == [None, rename]


@pytest.mark.parametrize(
    ("caller", "seconds"),
    [
        (ANYBODY, 15),
        (Caller("somebody"), 15),
        (Caller("slow", heartbeat=0), 0),
        (Caller("calm", heartbeat=9), 9),
    ],
)
def test_the_heartbeat_of_the_caller_overrides_that_of_the_upstream(caller: Caller, seconds: float) -> None:
    routing = plan_of({"a": {"heartbeat": 15}}, "a")
    assert routing.choose(CHAT_COMPLETIONS, None, caller).heartbeat == seconds


# --- weights


WEIGHTS = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 20), min_size=1)


def turns(balance: Balance, count: int) -> str:
    """Return the chosen upstreams, one after the other."""
    return "".join(balance.order(balance.names)[0] for _ in range(count))


def test_turns_are_evenly_spaced() -> None:
    assert turns(Balance({"a": 5, "b": 1, "c": 1}), 7) == "aabacaa"


def test_one_upstream_has_every_turn() -> None:
    assert turns(Balance({"a": 7}), 3) == "aaa"


@given(WEIGHTS, st.integers(0, 40))
def test_shares_are_exact_over_every_round(weights: dict[str, int], before: int) -> None:
    balance = Balance(weights)
    turns(balance, before * sum(weights.values()))
    assert Counter(turns(balance, sum(weights.values()))) == weights


@given(WEIGHTS, st.sets(st.sampled_from("abcdef")))
def test_every_upstream_has_a_successor_in_the_plan(weights: dict[str, int], able: set[str]) -> None:
    assert {*Balance(weights).order(able)} == {*weights}


def test_while_one_circuit_is_open_the_others_keep_their_shares() -> None:
    balance = Balance({"a": 3, "b": 1, "c": 1})
    turns(balance, 2)
    found = Counter(balance.order({"b", "c"})[0] for _ in range(100))
    assert found["b"] + found["c"] == 100
    assert abs(found["b"] - found["c"]) <= 2  # the previous choices did not end a round
    assert Counter(turns(balance, 500)) == {"a": 300, "b": 100, "c": 100}
