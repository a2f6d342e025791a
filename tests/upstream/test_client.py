"""Sending with a current token: the forwarded request, the retry after a 401, and freed connections."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from proxy.errors import (
    Aborted,
    BadResponse,
    Draining,
    InvalidRequest,
    InvalidResponse,
    Overloaded,
    ProxyError,
    TokenRejected,
    TokenUnavailable,
    Unreachable,
    UpstreamForbidden,
    UpstreamTimeout,
)
from proxy.settings import Inject, Upstream
from proxy.tls_contexts import TlsFiles
from proxy.upstream.client import UpstreamClient, tls_files_of
from proxy.upstream.requests import UpstreamRequest
from proxy.wire.endpoints import CHAT_COMPLETIONS
from tests.credentials.fakes import DOWN, FakeIssuer
from tests.loopback import until
from tests.ports import free_port
from tests.raw_upstream import Conversation, raw_upstream
from tests.upstream.build import (
    build_client,
    build_credential,
    build_record,
    build_request,
    raw_server,
    read_all,
    reset,
)


async def ok(talk: Conversation) -> None:
    """Answer anything."""
    await talk.answer(b"ok")


async def unauthorized(talk: Conversation) -> None:
    """Reject any token."""
    await talk.answer(b"who?", status="401 Unauthorized")


async def quiet(talk: Conversation) -> None:
    """Send nothing until the other side leaves."""
    await talk.caller_left()


async def only_the_second_token(talk: Conversation) -> None:
    """Reject the first token of the issuer."""
    fine = talk.request.header("authorization") == ["Bearer token-2"]
    await (ok if fine else unauthorized)(talk)


def upload(*, length: int | None = None) -> UpstreamRequest:
    """Return a request whose body can be sent once."""

    async def blocks() -> AsyncIterator[bytes]:
        yield b"one "
        yield b"two"

    return UpstreamRequest(
        method="POST", path=b"/files", query=b"", headers=[], body=blocks(), content_length=length
    )


# --- responses


async def test_a_location_is_relative_or_removed() -> None:
    async def script(talk: Conversation) -> None:
        base = f"http://{talk.request.header('host')[0]}/v1"
        await talk.answer(
            b"", f"Location: {base}/files/f-1", "Content-Location: http://10.0.0.7/x", status="201 Created"
        )

    async with raw_upstream(script) as upstream, build_client(upstream.url) as client:
        response = await client.open(build_request(path=b"/files"), build_record())
        await read_all(response)
    assert dict(response.headers)[b"Location"] == b"./files/f-1"
    assert b"10.0.0.7" not in repr(response.headers).encode()


async def test_an_earlier_token_is_masked_too() -> None:
    async def script(talk: Conversation) -> None:
        if issuer.token == "live-token-1":
            issuer.token = "live-token-2"
            await unauthorized(talk)
        else:
            await talk.answer(b"not live-token-1, not live-token-2", "X-Debug: live-token-1", status="400 No")

    issuer = FakeIssuer()
    issuer.token = "live-token-1"
    credential = build_credential(issuer)
    async with raw_upstream(script) as upstream, build_client(upstream.url, credential) as client:
        response = await client.open(build_request(), build_record())
        assert await read_all(response) == b"not ************, not ************"
    assert b"************" in dict(response.headers).values()


async def test_a_configured_credential_is_masked_and_any_other_configured_header_is_not() -> None:
    async def script(talk: Conversation) -> None:
        await talk.answer(b"key-0123456789 of application-x", status="400 No")

    headers = {"X-Api-Key": "key-0123456789", "X-App": "application-x"}
    async with raw_upstream(script) as upstream, build_client(upstream.url, headers=headers) as client:
        response = await client.open(build_request(), build_record())
        assert await read_all(response) == b"************** of application-x"


# --- requests


async def test_the_path_is_appended_to_the_base_url_byte_for_byte() -> None:
    async with raw_upstream(ok) as upstream, build_client(upstream.url) as client:
        request = build_request("GET", b"/models/BAAI%2Fbge", b"a=%20b&&c=+%2f'\"")
        assert await read_all(await client.open(request, build_record())) == b"ok"
    assert upstream.requests[0].target == b"/v1/models/BAAI%2Fbge?a=%20b&&c=+%2f'\""


async def test_the_sdk_adds_no_header_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-the-environment")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-of-the-environment")
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-the-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://elsewhere.test/v1")
    async with raw_upstream(ok) as upstream, build_client(upstream.url) as client:
        await read_all(await client.open(build_request(body=b"{}"), build_record()))
    host = upstream.url.removeprefix("http://").encode()
    assert upstream.requests[0].head == (
        b"POST /v1/models HTTP/1.1\r\nHost: " + host + b"\r\nContent-Length: 2\r\n\r\n"
    )


@pytest.mark.parametrize("name", [b"openai-organization", b"openai-project", b"openai_project"])
@pytest.mark.parametrize("forward", [True, False])
async def test_the_callers_openai_account_is_forwarded_only_if_configured(name: bytes, forward: bool) -> None:  # noqa: FBT001
    async with (
        raw_upstream(ok) as upstream,
        build_client(upstream.url, forward_openai_account=forward) as client,
    ):
        await read_all(await client.open(build_request(headers=[(name, b"org-1")]), build_record()))
    assert upstream.requests[0].header(name.decode()) == (["org-1"] if forward else [])


async def test_no_other_spelling_of_a_header_reaches_an_upstream_that_may_not_tell_them_apart() -> None:
    theirs = [(b"x_team", b"theirs"), (b"x_token", b"theirs"), (b"x_other", b"kept")]
    credential = build_credential(FakeIssuer(), Inject(header="X-Token", template="{token}"))
    async with (
        raw_upstream(ok) as upstream,
        build_client(upstream.url, credential, headers={"X-Team": "ours"}) as client,
    ):
        await read_all(await client.open(build_request(headers=theirs), build_record()))
    (request,) = upstream.requests
    assert b"theirs" not in request.head
    assert request.header("x_other") == ["kept"]


async def test_configured_headers_replace_those_of_the_caller() -> None:
    async with (
        raw_upstream(ok) as upstream,
        build_client(upstream.url, headers={"X-Team": "ours", "User-Agent": "set"}) as client,
    ):
        theirs = [(b"x-team", b"theirs"), (b"x-team", b"again"), (b"user-agent", b"sdk"), (b"x-more", b"1")]
        await read_all(await client.open(build_request(headers=theirs), build_record()))
        assert theirs[0] == (b"x-team", b"theirs")  # the caller's list does not change
    request = upstream.requests[0]
    assert request.header("x-team") == ["ours"]
    assert request.header("user-agent") == ["set"]
    assert request.header("x-more") == ["1"]


async def test_the_token_replaces_every_other_value_of_its_header() -> None:
    async with (
        raw_upstream(ok) as upstream,
        build_client(
            upstream.url, build_credential(FakeIssuer()), headers={"Authorization": "configured"}
        ) as client,
    ):
        record = build_record()
        sent = build_request(headers=[(b"authorization", b"Bearer theirs")])
        await read_all(await client.open(sent, record))
    assert upstream.requests[0].header("authorization") == ["Bearer token-1"]
    assert (record.generation, record.replays) == (1, 0)


async def test_a_token_is_added_to_the_query_and_the_rest_stays() -> None:
    place = Inject(header=None, template="{token}", query="key")
    async with (
        raw_upstream(ok) as upstream,
        build_client(upstream.url, build_credential(FakeIssuer(token="a/b&c"), place)) as client,
    ):
        sent = build_request(query=b"x=%2F&key=theirs&y=+")
        await read_all(await client.open(sent, build_record()))
        await read_all(await client.open(build_request(), build_record()))
    assert [request.target for request in upstream.requests] == [
        b"/v1/models?x=%2F&y=+&key=a%2Fb%26c", b"/v1/models?key=a%2Fb%26c",
    ]  # fmt: skip
    assert upstream.requests[0].header("authorization") == []


async def test_an_upload_is_forwarded_with_its_announced_length() -> None:
    async with raw_upstream(ok) as upstream, build_client(upstream.url) as client:
        await read_all(await client.open(upload(length=7), build_record()))
        await read_all(await client.open(upload(), build_record()))
    first, second = upstream.requests
    assert first.body == second.body == b"one two"
    assert (first.header("content-length"), first.header("transfer-encoding")) == (["7"], [])
    assert (second.header("content-length"), second.header("transfer-encoding")) == ([], ["chunked"])


async def test_cookies_of_one_exchange_do_not_reach_the_next() -> None:
    async def bake(talk: Conversation) -> None:
        await talk.answer(b"", "Set-Cookie: session=of-one-caller; Path=/")

    async with raw_upstream(bake) as upstream, build_client(upstream.url) as client:
        for _ in range(2):
            await read_all(await client.open(build_request(), build_record()))
    assert [request.header("cookie") for request in upstream.requests] == [[], []]


# --- the repair of a 401


async def test_a_held_body_is_sent_once_more_with_a_fresh_token() -> None:
    issuer, record = FakeIssuer(), build_record()
    async with (
        raw_upstream(only_the_second_token) as upstream,
        build_client(upstream.url, build_credential(issuer)) as client,
    ):
        response = await client.open(build_request(query=b"q", body=b'{"a": 1}'), record)
        assert response.status == 200
        assert await read_all(response) == b"ok"
    first, second = upstream.requests
    assert first.body == second.body == b'{"a": 1}'
    assert first.target == second.target == b"/v1/models?q"
    assert second.header("authorization") == ["Bearer token-2"]
    assert (record.generation, record.replays, issuer.fetches) == (2, 1, 2)


async def test_each_of_two_upstreams_with_one_credential_learns_of_a_new_token_by_itself() -> None:
    issuer = FakeIssuer()
    credential = build_credential(issuer)

    async def only_the_first_token(talk: Conversation) -> None:
        fine = talk.request.header("authorization") == ["Bearer token-1"]
        await (ok if fine else unauthorized)(talk)

    async with (
        raw_upstream(ok) as quick,
        raw_upstream(only_the_first_token) as late,
        build_client(quick.url, credential, name="quick") as first,
        build_client(late.url, credential, name="late") as second,
    ):
        for client in (first, second):
            await read_all(await client.open(build_request(), build_record()))
        credential.source.prefetch()
        await until(lambda: credential.source.reading().generation == 2)
        for client in (first, second):
            response = await client.open(build_request(), build_record())
            assert (response.status, await read_all(response)) == (200, b"ok")
    assert [request.header("authorization")[0][-1] for request in late.requests] == ["1", "2", "1"]
    assert issuer.fetches == 2


async def forbidden(talk: Conversation) -> None:
    """Reject every token for one model, with a specific message."""
    if b"secret-model" not in talk.request.body:
        await ok(talk)
        return
    token = talk.request.header("authorization")[0]
    body = {"error": {"message": f"{token} may not use this model", "type": "denied", "code": "x", "more": 1}}
    await talk.answer(json.dumps(body).encode(), status="401 Unauthorized")


def asks(model: str) -> UpstreamRequest:
    """Return a chat request for a model."""
    return replace(
        build_request(path=b"/chat/completions", body=model.encode()),
        endpoint=CHAT_COMPLETIONS,
        model=model,
    )


async def test_a_request_rejected_with_every_token_gets_the_upstreams_own_error_as_a_403() -> None:
    issuer = FakeIssuer(prefix="long-token-")
    async with (
        raw_upstream(forbidden) as upstream,
        build_client(upstream.url, build_credential(issuer)) as client,
    ):
        await read_all(await client.open(asks("other"), build_record()))
        with pytest.raises(UpstreamForbidden) as caught:
            await client.open(asks("secret-model"), build_record())
        assert client.running == 0
        await read_all(await client.open(asks("other"), build_record()))
        with pytest.raises(UpstreamForbidden):  # later requests need no further fetch
            await client.open(asks("secret-model"), build_record())
    assert (caught.value.status, caught.value.code) == (403, "upstream_forbidden")
    assert caught.value.envelope() == {
        "error": {
            "message": "Bearer ************ may not use this model",
            "type": "denied",
            "param": None,
            "code": "upstream_forbidden",
            "more": 1,
        }
    }
    assert [request.header("authorization") for request in upstream.requests] == [
        ["Bearer long-token-1"], ["Bearer long-token-1"],
        ["Bearer long-token-2"], ["Bearer long-token-2"], ["Bearer long-token-2"],
    ]  # fmt: skip
    assert issuer.fetches == 2


async def test_an_upstream_that_never_accepted_a_token_rejects_ours_and_not_the_request() -> None:
    async with (
        raw_upstream(unauthorized) as upstream,
        build_client(upstream.url, build_credential(FakeIssuer())) as client,
    ):
        for sends in (2, 3):  # the second request costs no further fetch
            with pytest.raises(TokenRejected) as caught:
                await client.open(build_request(body=b"{}"), build_record())
            assert len(upstream.requests) == sends
        assert client.running == 0
    assert (caught.value.status, caught.value.headers["X-Should-Retry"]) == (502, "false")


@pytest.mark.parametrize("accepted_before", [True, False])
async def test_the_only_available_token_is_not_sent_again(*, accepted_before: bool) -> None:
    record = build_record()
    async with (
        raw_upstream(forbidden) as upstream,
        build_client(upstream.url, build_credential(FakeIssuer(token="the only one"))) as client,
    ):
        if accepted_before:
            await read_all(await client.open(asks("other"), build_record()))
        expected = UpstreamForbidden if accepted_before else TokenRejected
        with pytest.raises(expected):
            await client.open(asks("secret-model"), record)
        assert client.running == 0
    assert len(upstream.requests) == 1 + accepted_before
    assert record.replays == 0


@pytest.mark.parametrize("body", ["endless", "cut"])
async def test_an_endless_body_of_a_rejection_delays_nothing(body: str) -> None:
    async def script(talk: Conversation) -> None:
        if talk.request.header("authorization") == ["Bearer token-2"]:
            await ok(talk)
            return
        await talk.say(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 999999\r\n\r\n{")
        if body == "endless":
            await talk.caller_left()

    async with (
        raw_upstream(script) as upstream,
        build_client(upstream.url, build_credential(FakeIssuer())) as client,
    ):
        response = await client.open(build_request(body=b"{}"), build_record())
        assert response.status == 200
        await read_all(response)
        await until(lambda: upstream.connections <= 1)


async def test_a_rejected_streamed_upload_asks_for_a_retry_and_refreshes_the_token() -> None:
    issuer = FakeIssuer()
    async with (
        raw_upstream(only_the_second_token) as upstream,
        build_client(upstream.url, build_credential(issuer)) as client,
    ):
        with pytest.raises(TokenUnavailable) as caught:
            await client.open(upload(length=7), build_record())
        assert caught.value.headers == {"Retry-After": "1"}
        assert (await client.open(upload(length=7), build_record())).status == 200
    assert [request.body for request in upstream.requests] == [b"one two", b"one two"]
    assert issuer.fetches == 2


async def test_a_rejected_streamed_upload_is_denied_if_there_is_no_other_token() -> None:
    issuer = FakeIssuer(token="same")
    respond = ok

    async def script(talk: Conversation) -> None:
        await respond(talk)

    async with (
        raw_upstream(script) as upstream,
        build_client(upstream.url, build_credential(issuer)) as client,
    ):
        await read_all(await client.open(upload(length=7), build_record()))
        respond = unauthorized
        with pytest.raises(UpstreamForbidden):
            await client.open(upload(length=7), build_record())
    assert len(upstream.requests) == 2


async def test_no_fresh_token_after_a_401_is_unavailable() -> None:
    issuer = FakeIssuer()

    async def refuse(talk: Conversation) -> None:
        issuer.error = DOWN
        await unauthorized(talk)

    async with (
        raw_upstream(refuse) as upstream,
        build_client(upstream.url, build_credential(issuer)) as client,
    ):
        with pytest.raises(TokenUnavailable):
            await client.open(build_request(body=b"{}"), build_record())
        assert client.running == 0
    assert len(upstream.requests) == 1


async def test_without_a_credential_a_401_is_a_normal_response() -> None:
    async with raw_upstream(unauthorized) as upstream, build_client(upstream.url) as client:
        response = await client.open(build_request(body=b"{}"), build_record())
        assert response.status == 401
        assert await read_all(response) == b"who?"
    assert upstream.requests[0].header("authorization") == []


@pytest.mark.parametrize("status", ["403 Forbidden", "429 Too Many", "500 No", "204 None", "304 Same"])
async def test_any_other_status_is_a_normal_response(status: str) -> None:
    async def answer(talk: Conversation) -> None:
        await talk.say(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nLocation: /x\r\n\r\n".encode())

    async with (
        raw_upstream(answer) as upstream,
        build_client(upstream.url, build_credential(FakeIssuer())) as client,
    ):
        response = await client.open(build_request(body=b"{}"), build_record())
        assert response.status == int(status[:3])
        await response.aclose()
    assert len(upstream.requests) == 1


# --- no answer that could be relayed


async def test_a_redirect_is_an_invalid_response_and_its_connection_is_released() -> None:
    async def away(talk: Conversation) -> None:
        await talk.say(b"HTTP/1.1 307 Away\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 9\r\n\r\npart")
        await talk.caller_left()

    async with raw_upstream(away) as upstream, build_client(upstream.url) as client:
        with pytest.raises(InvalidResponse, match="redirect") as caught:
            await client.open(build_request(), build_record())
        await until(lambda: upstream.connections == 0)
        assert client.running == 0
        assert "redirect" in str(caught.value.reason)


@pytest.mark.parametrize(
    ("path", "media", "hinted"),
    [
        ("/x", "text/html; charset=utf-8", True),
        ("", "application/json", True),
        ("/v1", "application/json", False),
    ],
)
async def test_a_404_past_the_api_is_explained_in_the_log(path: str, media: str, *, hinted: bool) -> None:
    async def missing(talk: Conversation) -> None:
        await talk.say(f"HTTP/1.1 404 X\r\nContent-Type: {media}\r\nContent-Length: 0\r\n\r\n".encode())

    record = build_record()
    async with raw_upstream(missing) as upstream, build_client("", base_url=upstream.url + path) as client:
        response = await client.open(build_request(), record)
        await response.aclose()
    assert response.status == 404
    assert ("check that base_url has its version, such as /v1" in (record.reason or "")) is hinted


async def test_a_refused_connection_is_unreachable() -> None:
    port = free_port()
    async with build_client(f"http://127.0.0.1:{port}") as client:
        with pytest.raises(Unreachable) as caught:
            await client.open(build_request(), build_record())
    assert (caught.value.reason or "").startswith(f"http://127.0.0.1:{port}: connection refused; ")


async def test_a_connection_that_is_not_established_in_time_is_a_timeout() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with (
        raw_server(say_nothing) as place,
        build_client(f"https://{place}", timeouts={"connect": 0.02}) as client,
    ):
        with pytest.raises(UpstreamTimeout):
            await client.open(build_request(), build_record())
        assert client.running == 0


async def test_a_lost_connection_is_a_bad_response_and_no_timeout() -> None:
    async def leave(talk: Conversation) -> None:
        talk.writer.close()

    async with raw_upstream(leave) as upstream, build_client(upstream.url) as client:
        with pytest.raises(BadResponse) as caught:
            await client.open(build_request(), build_record())
    assert (caught.value.reason or "").startswith(
        f"{upstream.url}: the connection was closed before a response"
    )


async def test_the_reason_in_the_log_does_not_reveal_a_token_in_the_query() -> None:
    async def garbage(talk: Conversation) -> None:
        await talk.say(b"garbage\r\n\r\n")
        await talk.caller_left()

    place = Inject(header=None, template="{token}", query="key")
    async with (
        raw_upstream(garbage) as upstream,
        build_client(upstream.url, build_credential(FakeIssuer(token="canary"), place)) as client,
    ):
        with pytest.raises(BadResponse) as caught:
            await client.open(build_request(), build_record())
    assert b"canary" in upstream.requests[0].target
    assert "canary" not in str(caught.value.reason)


async def test_a_header_that_is_not_utf8_is_the_callers_fault() -> None:
    async with raw_upstream(ok) as upstream, build_client(upstream.url) as client:
        with pytest.raises(InvalidRequest):
            await client.open(build_request(headers=[(b"x-odd", b"\xff")]), build_record())
        assert client.running == 0
    assert upstream.requests == []


@pytest.mark.parametrize("cut", ["reset", "close"])
async def test_a_response_that_breaks_off_is_aborted(cut: str) -> None:
    go_on = asyncio.Event()

    async def script(talk: Conversation) -> None:
        await talk.start_stream()
        await talk.chunk(b"part")
        await go_on.wait()
        if cut == "reset":
            reset(talk)
        else:
            talk.writer.close()

    async with raw_upstream(script) as upstream, build_client(upstream.url) as client:
        response = await client.open(build_request(), build_record())
        assert await response.read() == b"part"
        go_on.set()
        with pytest.raises(Aborted) as broken:
            await response.read()
        assert "the response broke off" in (broken.value.reason or "")
        await response.aclose()


async def test_a_failed_response_raises_our_error_in_the_read_that_waits() -> None:
    async def script(talk: Conversation) -> None:
        await talk.start_stream()
        await talk.caller_left()

    async with raw_upstream(script) as upstream, build_client(upstream.url) as client:
        response = await client.open(build_request(), build_record())
        asyncio.get_running_loop().call_soon(response.fail, Draining())
        with pytest.raises(Draining):
            await response.read()
        await response.aclose()
        await until(lambda: upstream.connections == 0)


# --- places


async def full(client: UpstreamClient) -> bool:
    """Return whether one more request is rejected."""
    try:
        response = await client.open(build_request(), build_record())
    except Overloaded:
        return True
    await response.aclose()
    return False


async def test_no_more_exchanges_than_connections_and_each_releases_its_place() -> None:
    async with raw_upstream(ok) as upstream, build_client(upstream.url, max_connections=2) as client:
        first = await client.open(build_request(), build_record())
        assert not await full(client)
        second = await client.open(build_request(), build_record())
        assert await full(client)
        await first.aclose()
        assert not await full(client)
        await second.aclose()
        assert client.running == 0
    assert len(upstream.requests) == 4  # the rejected request was not sent


@pytest.mark.parametrize("where", ["the token", "the answer"])
async def test_a_cancelled_request_releases_its_place(where: str) -> None:
    issuer = FakeIssuer(delay=60 if where == "the token" else 0)
    credential = build_credential(issuer)
    async with (
        raw_upstream(quiet) as upstream,
        build_client(upstream.url, credential, max_connections=1) as client,
        asyncio.TaskGroup() as group,
    ):
        waiting = group.create_task(client.open(build_request(), build_record()))
        await until(lambda: bool(issuer.flying if where == "the token" else upstream.requests))
        assert await full(client)
        waiting.cancel()
        await asyncio.wait({waiting})
        assert client.running == 0
        await until(lambda: upstream.connections == 0)
    await credential.source.close()


async def test_a_request_cancelled_between_its_two_attempts_releases_its_place() -> None:
    issuer = FakeIssuer()
    credential = build_credential(issuer)

    async def refuse(talk: Conversation) -> None:
        issuer.delay = 60
        await unauthorized(talk)

    async with (
        raw_upstream(refuse) as upstream,
        build_client(upstream.url, credential) as client,
        asyncio.TaskGroup() as group,
    ):
        waiting = group.create_task(client.open(build_request(), build_record()))
        await until(lambda: issuer.fetches == 2)
        assert client.running == 1
        waiting.cancel()
        await asyncio.wait({waiting})
        assert client.running == 0
    await credential.source.close()


async def test_a_failed_request_releases_its_place() -> None:
    async def leave(talk: Conversation) -> None:
        talk.writer.close()

    async with raw_upstream(leave) as upstream, build_client(upstream.url, max_connections=1) as client:
        for _ in range(3):
            with pytest.raises(ProxyError, match="did not send a valid response"):
                await client.open(build_request(), build_record())
    assert len(upstream.requests) == 3


async def test_a_missing_token_releases_the_place() -> None:
    async with (
        raw_upstream(ok) as upstream,
        build_client(upstream.url, build_credential(FakeIssuer(error=DOWN)), max_connections=1) as client,
    ):
        for _ in range(2):
            with pytest.raises(TokenUnavailable):
                await client.open(build_request(), build_record())
    assert upstream.requests == []


async def test_the_sdks_own_methods_use_the_same_transport() -> None:
    async def models(talk: Conversation) -> None:
        await talk.answer(
            b'{"object": "list", "data": [{"id": "m", "object": "model"}]}', "Content-Type: application/json"
        )

    async with raw_upstream(models) as upstream, build_client(upstream.url) as client:
        assert [model.id for model in (await client.models.list()).data] == ["m"]
    assert upstream.requests[0].target == b"/v1/models"


@pytest.mark.parametrize(
    ("base_url", "proxy", "is_needed"),
    [
        ("http://llm.test/v1", None, False),
        ("https://llm.test/v1", None, True),
        ("HTTPS://llm.test/v1", None, True),
        ("http://llm.test/v1", "http://proxy.test", False),
        ("http://llm.test/v1", "https://proxy.test", True),
    ],
)
def test_a_tls_context_is_needed_for_a_secure_upstream_or_proxy(
    base_url: str, proxy: str | None, *, is_needed: bool
) -> None:
    settings = Upstream(base_url=base_url, proxy=proxy, ca_file=None)
    assert tls_files_of(settings) == (TlsFiles() if is_needed else None)
