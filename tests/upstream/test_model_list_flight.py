"""Callers of the merged list of models share one fetch, which belongs to none of them."""

import asyncio
import contextvars
import json
from typing import cast

from structlog.testing import capture_logs

from proxy.errors import BadResponse, InternalError, ProxyError
from proxy.settings import Settings
from proxy.telemetry import ExchangeRecord
from proxy.upstream.client import UpstreamClient
from proxy.upstream.model_list import ModelList
from proxy.upstream.requests import UpstreamRequest
from proxy.upstream.transport import UpstreamResponse
from proxy.wire.model_list import ModelEntry
from tests.conftest import KEY, RunProxy
from tests.credentials.fakes import pass_time, virtually
from tests.loopback import until
from tests.raw_caller import RawCaller, raw_caller
from tests.raw_upstream import Conversation, raw_upstream

LIMITED_KEY = "sk-limited-5d21-90ab"
LIMITED = f"""
[[access.keys]]
name = "limited"
key = "{LIMITED_KEY}"
models = ["cheap"]
"""
CALLER = contextvars.ContextVar("caller", default="")


class Response:
    """A response with a list of one model."""

    status = 200

    def __init__(self, body: bytes) -> None:
        self._chunks = [body, b""]

    async def read(self) -> bytes:
        return self._chunks.pop(0)

    async def aclose(self) -> None:
        pass


class Client:
    """A client whose upstream answers when the test lets it, and that records what it is asked."""

    def __init__(self, body: bytes = b'{"data":[{"id":"m"}]}', error: ProxyError | None = None) -> None:
        self.answer = asyncio.Event()
        self.requests: list[UpstreamRequest] = []
        self.contexts: list[str] = []
        self.cancelled = 0
        self._body = body
        self._error = error

    async def open(self, request: UpstreamRequest, _record: ExchangeRecord) -> UpstreamResponse:
        self.requests.append(request)
        self.contexts.append(CALLER.get())
        try:
            await self.answer.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self._error is not None:
            raise self._error
        return cast(UpstreamResponse, Response(self._body))


def model_list(*clients: Client) -> ModelList:
    """Return a merged list over these upstreams."""
    settings = Settings.model_validate(
        {
            "access": {"keys": [{"name": "app", "key": KEY}]},
            "routes": {"default": "0"},
            "upstreams": {"0": {"base_url": "http://127.0.0.1:9/v1"}},
            "models": {"list": "merged"},
        }
    )
    named = {str(place): cast(UpstreamClient, client) for place, client in enumerate(clients)}
    return ModelList(settings, named)


def ask(models: ModelList, count: int) -> list["asyncio.Task[list[ModelEntry]]"]:
    """Let callers ask for the list, each in a context of its own."""

    async def call(name: str) -> list[ModelEntry]:
        CALLER.set(name)
        return await models.entries()

    return [asyncio.get_running_loop().create_task(call(f"caller {place}")) for place in range(count)]


@virtually
async def test_callers_at_the_same_moment_share_one_fetch_from_each_upstream() -> None:
    upstreams = Client(), Client(b'{"data":[{"id":"n"}]}')
    models = model_list(*upstreams)
    callers = ask(models, 50)
    await pass_time(1.0)
    callers += ask(models, 50)  # while the fetch is running
    await pass_time(1.0)
    for upstream in upstreams:
        upstream.answer.set()
    answers = await asyncio.gather(*callers)
    assert {tuple(entry.id for entry in answer) for answer in answers} == {("m", "n")}
    assert [len(upstream.requests) for upstream in upstreams] == [1, 1]
    await asyncio.gather(*ask(models, 5))
    assert [len(upstream.requests) for upstream in upstreams] == [1, 1]  # the list is reused for a while


@virtually
async def test_the_fetch_carries_nothing_of_the_caller_that_started_it() -> None:
    upstream = Client()
    callers = ask(model_list(upstream), 2)
    upstream.answer.set()
    await asyncio.gather(*callers)
    assert upstream.contexts == [""]
    assert sorted(name for name, _ in upstream.requests[0].headers) == [
        b"accept",
        b"accept-encoding",
        b"x-request-id",
    ]


@virtually
async def test_the_caller_that_started_the_fetch_may_leave() -> None:
    upstream = Client()
    first, *others = ask(model_list(upstream), 3)
    await pass_time(1.0)
    first.cancel()
    await pass_time(1.0)
    upstream.answer.set()
    assert [[entry.id for entry in answer] for answer in await asyncio.gather(*others)] == [["m"], ["m"]]
    assert first.cancelled()
    assert (len(upstream.requests), upstream.cancelled) == (1, 0)


@virtually
async def test_the_last_caller_that_leaves_cancels_the_fetch_and_waits_for_its_end() -> None:
    upstream = Client()
    models = model_list(upstream)
    callers = ask(models, 3)
    await pass_time(1.0)
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)
    assert upstream.cancelled == 1
    assert asyncio.all_tasks() == {asyncio.current_task()}
    upstream.answer.set()
    (later,) = ask(models, 1)
    assert [entry.id for entry in await later] == ["m"]
    assert len(upstream.requests) == 2


@virtually
async def test_each_caller_gets_the_failure_as_its_own_exception_and_the_next_one_a_new_fetch() -> None:
    upstream = Client(error=BadResponse("no list", headers={"X-Is": "kept"}, reason="it is broken"))
    models = model_list(upstream)
    upstream.answer.set()
    errors = await asyncio.gather(*ask(models, 3), return_exceptions=True)
    assert {(type(error), str(error)) for error in errors} == {(BadResponse, "no list")}
    assert {error.reason for error in errors if isinstance(error, ProxyError)} == {"it is broken"}
    assert len({id(error) for error in errors}) == 3
    await asyncio.gather(*ask(models, 1), return_exceptions=True)
    assert len(upstream.requests) == 2  # a failure is not kept


@virtually
async def test_a_defect_fails_every_caller() -> None:
    upstream = Client(error=cast(ProxyError, RuntimeError("a defect")))
    models = model_list(upstream)
    upstream.answer.set()
    with capture_logs() as lines:
        errors = await asyncio.gather(*ask(models, 2), return_exceptions=True)
    assert [type(error) for error in errors] == [InternalError, InternalError]
    assert [line["event"] for line in lines] == ["defect"]


async def test_callers_with_different_keys_share_the_fetch_and_get_their_own_models(
    run_proxy: RunProxy,
) -> None:
    arrived, answer = asyncio.Event(), asyncio.Event()

    async def list_two(talk: Conversation) -> None:
        arrived.set()
        await answer.wait()
        await talk.answer(b'{"data":[{"id":"cheap"},{"id":"dear"}]}', "Content-Type: application/json")

    async def listed(caller: RawCaller, key: str, *headers: str) -> list[str]:
        await caller.send("GET", "/v1/models", *headers, key=key)
        response = json.loads(await caller.body(await caller.answer()))
        return [model["id"] for model in response["data"]]

    async with (
        raw_upstream(list_two) as upstream,
        run_proxy(upstream.url, more=f'[models]\nlist = "merged"\n{LIMITED}') as proxy,
        raw_caller(proxy.url) as one,
        raw_caller(proxy.url) as other,
        asyncio.TaskGroup() as group,
    ):
        limited = group.create_task(listed(one, LIMITED_KEY, "X-Request-Id: of-the-limited", "X-Own: 1"))
        await until(arrived.is_set)
        full = group.create_task(listed(other, KEY))
        answer.set()
        assert (await limited, await full) == (["cheap"], ["cheap", "dear"])
    assert len(upstream.requests) == 2  # one for each upstream of the configuration
    for request in upstream.requests:
        assert request.header("x-request-id") != ["of-the-limited"]
        assert request.header("x-own") == []
