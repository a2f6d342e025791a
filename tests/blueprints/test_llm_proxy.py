"""The relayed routes: which public path becomes which upstream path, and which paths are not relayed."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from proxy.blueprints.llm_proxy import METHODS
from proxy.wire.endpoints import BARE_SEGMENTS
from tests.conftest import RunningProxy, RunProxy
from tests.hostile_paths import HOSTILE_PATHS, leaves, like_go, like_tomcat
from tests.raw_caller import RawAnswer, RawCaller, raw_caller
from tests.raw_upstream import Conversation, RawUpstream, raw_upstream

MOUNTS = ("", "/agent/api/llm_proxy")
VERSIONS = ("/v1", "/v1/v1", "")
BARE_PATHS = (
    "chat/completions",
    "chat/completions/chatcmpl-1/messages",
    *BARE_SEGMENTS,
    *(f"{segment}/x/y" for segment in BARE_SEGMENTS),
)
"""Paths that are relayed below every mount and version."""

VERSIONED_PATHS = (
    "chat",
    "chat/stream",
    "livez",
    "some/new/api",
    "v2/models",
    "agent/api/llm_proxy/v1/models",
    "x.json",
    "a..b",
    "~user/@me/a:b;c=d,e!$&'()*+",
)
"""Paths that are relayed only below `/v1`."""

ODD_TARGETS = {
    "/v1/models/BAAI%2Fbge-m3": "/v1/models/BAAI%2Fbge-m3",
    "/models/BAAI%2Fbge-m3": "/v1/models/BAAI%2Fbge-m3",
    "/v1/models/a%20b%C3%A9": "/v1/models/a%20b%C3%A9",
    "/v1/%6dodels": "/v1/%6dodels",
    "/v1/models/a%3Fb": "/v1/models/a%3Fb",
    "/v1/v1": "/v1/v1",
    "/v1/v1/v1": "/v1/v1",
    "/v1/v1/v1/models": "/v1/v1/models",
    "/v1/models?": "/v1/models",
    "/v1/models?a=%2F&a=+&=&b=[]&c=%zz&x": "/v1/models?a=%2F&a=+&=&b=[]&c=%zz&x",
    "/v1/models?next=/v1/../admin": "/v1/models?next=/v1/../admin",
    "/agent/api/llm_proxy/v1/files?path=//x": "/v1/files?path=//x",
}

OUTSIDE = (
    "/",
    "/nope",
    "/chat",
    "/chat/stream",
    "/chat/completionsx",
    "/modelsx",
    "/Models",
    "/V1/models",
    "/v2/models",
    "/v1x/models",
    "/v",
    "/agent",
    "/agent/api",
    "/agent/api/llm_proxy/nope",
    "/agent/api/llm_proxy/chat",
    "/agent/api/llm_proxy/livez",
    "/agent/api/llm_proxyx/v1/models",
    "/agent/api/llm_proxyv1/models",
    "/agent/api/llm_proxy/agent/api/llm_proxy/v1/models",
    "/api/llm_proxy/v1/models",
    "/%761/models",
    "/v1%2Fmodels",
    "/models%2Fx",
    "/static/x",
    "/favicon.ico",
)


@dataclass
class Between:
    """The caller of a service, and its upstream."""

    proxy: RunningProxy
    caller: RawCaller
    upstream: RawUpstream

    async def ask(self, method: str, target: str) -> tuple[RawAnswer, bytes]:
        """Send a request on the caller's only connection."""
        await self.caller.send(method, target)
        answer = await self.caller.answer()
        return answer, b"" if method == "HEAD" else await self.caller.body(answer)

    async def arrives(self, method: str, target: str) -> str:
        """Return the method and target at the upstream, such as `GET /v1/models`, or our own status."""
        before = len(self.upstream.requests)
        answer, _ = await self.ask(method, target)
        new = self.upstream.requests[before:]
        if not new:
            return f"{answer.status}"
        (request,) = new
        return request.head.partition(b" HTTP/1.1")[0].decode()


@pytest.fixture
async def between(run_proxy: RunProxy) -> AsyncIterator[Between]:
    """Run the service between an upstream that answers every request and a caller with a key."""

    async def answer(talk: Conversation) -> None:
        body = b"" if talk.request.head.startswith(b"HEAD") else b"{}"
        await talk.answer(body, "Content-Type: application/json")

    async with (
        raw_upstream(answer) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        yield Between(proxy, caller, upstream)


@pytest.mark.parametrize("mount", MOUNTS)
@pytest.mark.parametrize("version", VERSIONS)
async def test_every_mount_and_version_leads_to_the_same_upstream_path(
    between: Between, mount: str, version: str
) -> None:
    paths = (*BARE_PATHS, *(VERSIONED_PATHS if version else ()))
    found = {path: await between.arrives("GET", f"{mount}{version}/{path}") for path in paths}
    assert found == {path: f"GET /v1/{path}" for path in paths}


@pytest.mark.parametrize(("target", "upstream_target"), ODD_TARGETS.items())
async def test_odd_targets_arrive_as_they_were_sent(
    between: Between, target: str, upstream_target: str
) -> None:
    assert await between.arrives("GET", target) == f"GET {upstream_target}"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions",
        "/v1/embeddings",
        "/v1/models",
        "/v1/some/new/api",
        "/chat/completions",
        "/embeddings/x",
        "/agent/api/llm_proxy/v1/chat/completions",
        "/agent/api/llm_proxy/v1/embeddings",
        "/agent/api/llm_proxy/models",
    ],
)
async def test_every_method_is_relayed(between: Between, path: str) -> None:
    """OPTIONS too, also where the original's own two routes stand: the upstream knows what it takes."""
    found = {method: await between.arrives(method, path) for method in METHODS}
    relayed = path.removeprefix("/agent/api/llm_proxy").removeprefix("/v1")
    assert found == {method: f"{method} /v1{relayed}" for method in METHODS}
    assert {"GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "DELETE"} == set(METHODS)


async def test_no_hostile_path_reaches_the_upstream_outside_of_its_base_url(between: Between) -> None:
    statuses = set()
    for path in HOSTILE_PATHS:
        async with raw_caller(between.proxy.url) as caller:
            await caller.send("GET", path)
            statuses.add((await caller.answer()).status)
    assert statuses <= {200, 400, 404}
    for request in between.upstream.requests:
        target = request.head.split(b" ")[1]
        assert not any(leaves(b"/v1", normalise(target)) for normalise in (like_tomcat, like_go))


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
async def test_a_path_outside_the_api_is_404_in_the_envelope(between: Between, method: str) -> None:
    for target in OUTSIDE:
        answer, body = await between.ask(method, target)
        assert answer.status == 404, target
        assert answer.header("content-type") == ["application/json"]
        assert json.loads(body) == {
            "error": {
                "message": "no such path",
                "type": "invalid_request_error",
                "param": None,
                "code": "not_found",
            }
        }
    assert between.upstream.requests == []
    assert {line["outcome"] for line in between.proxy.exchanges} == {"not_found"}


async def test_head_outside_the_api_is_404_without_a_body(between: Between) -> None:
    for target in OUTSIDE:
        assert (await between.ask("HEAD", target))[0].status == 404
    assert between.upstream.requests == []


async def test_an_unknown_method_is_501_in_the_envelope(between: Between) -> None:
    answer, body = await between.ask("BREW", "/v1/models")
    assert (answer.status, json.loads(body)["error"]["code"]) == (501, "not_implemented")


@pytest.mark.parametrize("method", ["TRACE", "CONNECT"])
@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/chat/completions", "/models", "/agent/api/llm_proxy/v1/x"]
)
async def test_methods_outside_the_api_are_405_in_the_envelope(
    between: Between, method: str, path: str
) -> None:
    answer, body = await between.ask(method, path)
    assert answer.status == 405
    assert answer.header("allow") == ["DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"]
    assert answer.header("content-type") == ["application/json"]
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == "method_not_allowed"
    assert between.upstream.requests == []


@pytest.mark.parametrize(
    ("path", "upstream"),
    [
        ("/v1/embeddings", "embed"),
        ("/v1/v1/embeddings", "embed"),
        ("/embeddings", "embed"),
        ("/v1/%65mbeddings", "embed"),
        ("/agent/api/llm_proxy/v1/embeddings", "embed"),
        ("/agent/api/llm_proxy/embeddings/x", "embed"),
        ("/v1/chat/completions", "chat"),
        ("/v1/models/embeddings", "chat"),
    ],
)
async def test_the_upstream_is_chosen_by_the_endpoint_wherever_it_is_mounted(
    between: Between, path: str, upstream: str
) -> None:
    await between.ask("GET", path)
    assert [line["upstream"] for line in between.proxy.exchanges] == [upstream]
