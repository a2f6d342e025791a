"""New settings while the service runs: they apply to new exchanges, and no running one is cut."""

import asyncio
import contextlib
import gc
import json
import re
import ssl
import weakref
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from proxy import tls_contexts
from proxy.app import create_app, reload
from proxy.app_parts import app_parts
from proxy.credentials.sources import http
from proxy.drain import Drain
from proxy.errors import SettingsError
from proxy.settings import Settings, load_settings
from proxy.settings.restart import NEEDS_RESTART
from proxy.tls_contexts import TlsFiles, build_context
from proxy.upstream import client
from proxy.wire.endpoints import CHAT_COMPLETIONS
from tests.conftest import KEY, SETTINGS, STATIC, RunningGateway, RunningProxy, RunProxy, patient
from tests.loopback import until
from tests.pace import PATIENCE
from tests.raw_caller import RawCaller, raw_caller
from tests.raw_upstream import Conversation, raw_upstream
from tests.tls_servers import listening, make_certificate

CHAT = "/v1/chat/completions"
JSON = "Content-Type: application/json"


def settings(
    folder: Path, upstream: str, *, key: str = KEY, credential: str = STATIC, more: str = ""
) -> Settings:
    """Return a whole configuration, changed as `run_proxy` does."""
    path = folder / "other.toml"
    path.write_text(SETTINGS.format(key=key, upstream=upstream, credential=credential, options="", more=more))
    return patient(load_settings(path, {}))


async def status_of(caller: RawCaller, key: str = KEY) -> int:
    """Send a request, and return its status."""
    await caller.send("POST", CHAT, JSON, body=b"{}", key=key)
    answer = await caller.answer()
    await caller.body(answer)
    return answer.status


async def ok(talk: Conversation) -> None:
    """Answer anything."""
    await talk.answer(b"{}", JSON)


async def put_in_force(proxy: RunningProxy, new: Settings) -> None:
    """Reload the settings."""
    await reload(proxy.app, new)


async def test_a_new_key_is_accepted_and_the_old_one_is_not(run_proxy: RunProxy, tmp_path: Path) -> None:
    async with (
        raw_upstream(ok) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        assert await status_of(caller) == 200
        await put_in_force(proxy, settings(tmp_path, upstream.url, key="sk-new-key-91"))
        assert [await status_of(caller), await status_of(caller, "sk-new-key-91")] == [401, 200]


async def test_a_replaced_configuration_that_nothing_uses_is_freed(
    run_proxy: RunProxy, tmp_path: Path
) -> None:
    # No request is sent: the cancelled timers of asyncio refer to what they would have ended for minutes.
    async with raw_upstream(ok) as upstream, run_proxy(upstream.url) as proxy:
        replaced = weakref.ref(app_parts(proxy.app).snapshots.current.routing)
        await put_in_force(proxy, settings(tmp_path, upstream.url))
        await until(lambda: gc.collect() >= 0 and replaced() is None)


async def test_a_stream_keeps_the_settings_that_it_started_with(run_proxy: RunProxy, tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def slow(talk: Conversation) -> None:
        await talk.start_stream()
        await talk.chunk(b"data: 1\n\n")
        await go_on.wait()
        await talk.chunk(b"data: [DONE]\n\n")
        await talk.end()

    async with (
        raw_upstream(slow) as before,
        raw_upstream(ok) as after,
        run_proxy(before.url) as proxy,
        raw_caller(proxy.url) as streaming,
        raw_caller(proxy.url) as caller,
    ):
        await streaming.send("POST", CHAT, JSON, body=b'{"stream": true}')
        answer = await streaming.answer()
        assert await streaming.chunk() == b"data: 1\n\n"
        old, snapshots = proxy.services, app_parts(proxy.app).snapshots
        await put_in_force(proxy, settings(tmp_path, after.url))
        assert await status_of(caller) == 200
        assert snapshots.has_requests()
        assert len(after.requests) == 1
        assert not old.users.may_close
        go_on.set()
        assert await streaming.body(answer) == b"data: [DONE]\n\n"
        await until(lambda: old.users.may_close and not snapshots.has_requests())
        await until(lambda: before.connections == 0)  # its connections are closed with it


async def test_the_streams_of_all_configurations_count_against_the_limit_of_an_upstream(
    run_proxy: RunProxy, tmp_path: Path
) -> None:
    go_on = asyncio.Event()

    async def slow(talk: Conversation) -> None:
        await talk.start_stream()
        await talk.chunk(b"data: 1\n\n")
        await go_on.wait()
        await talk.chunk(b"data: [DONE]\n\n")
        await talk.end()

    def limited(upstream: str, most: int) -> Settings:
        loaded = settings(tmp_path, upstream)
        chat = loaded.upstreams["chat"].model_copy(update={"max_connections": most})
        return loaded.model_copy(update={"upstreams": {**loaded.upstreams, "chat": chat}})

    async with (
        raw_upstream(slow) as upstream,
        raw_upstream(ok) as elsewhere,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as first,
        raw_caller(proxy.url) as second,
        raw_caller(proxy.url) as caller,
    ):
        await put_in_force(proxy, limited(upstream.url, 2))
        begun = []
        for streaming in (first, second):
            await streaming.send("POST", CHAT, JSON, body=b'{"stream": true}')
            begun.append((streaming, await streaming.answer()))
            await put_in_force(proxy, limited(elsewhere.url, 2))
            assert await status_of(caller) == 200  # at another server, which bears none of the streams
            await put_in_force(proxy, limited(upstream.url, 2))
        assert await status_of(caller) == 503
        metrics = proxy.services.metrics.render()[0].decode()
        assert 'llm_proxy_upstream_requests_running{upstream="chat"} 2.0' in metrics
        go_on.set()
        for streaming, answer in begun:
            await streaming.body(answer)
        await until(lambda: proxy.services.routing.choose(CHAT_COMPLETIONS).client.running == 0)
        assert await status_of(caller) == 200


async def test_an_unchanged_credential_keeps_its_token(
    run_proxy: RunProxy, gateway: RunningGateway, tmp_path: Path
) -> None:
    async with (
        run_proxy(gateway.url, credential=gateway.credential) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        assert await status_of(caller) == 400
        alike = settings(tmp_path, gateway.url, key="sk-new-key-91", credential=gateway.credential)
        source = proxy.services.credentials["corp"].source
        for _ in range(3):
            await put_in_force(proxy, alike)
            assert await status_of(caller, "sk-new-key-91") == 400
        assert proxy.services.credentials["corp"].source is source
        assert gateway.gateway.stats.token_fetches == 1


@contextlib.asynccontextmanager
async def tls_issuer(certificate: Path) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Serve a token endpoint with this certificate; yield its address, and the requests so far."""
    asked = list[bytes]()

    async def grant(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"token": "t"}')
        await writer.drain()

    async with listening(grant, certificate=certificate) as port:
        yield f"https://127.0.0.1:{port}", asked


async def test_the_new_content_of_a_ca_file_takes_effect_and_the_token_is_kept(
    run_proxy: RunProxy, tmp_path: Path
) -> None:
    certificate, ca = make_certificate(tmp_path), tmp_path / "ca.pem"
    ca.write_bytes(make_certificate(tmp_path).read_bytes())
    async with raw_upstream(ok) as upstream, tls_issuer(certificate) as (address, asked):
        credential = f'source = "http"\nurl = "{address}/t"\ntoken = "token"\nca_file = "{ca}"\n'
        async with run_proxy(upstream.url, credential=credential) as proxy, raw_caller(proxy.url) as caller:
            assert await status_of(caller) == 503
            for content in (certificate.read_bytes(), 2 * certificate.read_bytes()):
                ca.write_bytes(content)
                before = proxy.services.credentials["corp"].source
                await put_in_force(proxy, settings(tmp_path, upstream.url, credential=credential))
                assert proxy.services.credentials["corp"].source is not before
                assert await status_of(caller) == 200
            before = proxy.services.credentials["corp"].source
            await put_in_force(proxy, settings(tmp_path, upstream.url, credential=credential))
            assert proxy.services.credentials["corp"].source is before
        assert len(asked) == 1


async def test_a_reload_builds_only_the_tls_contexts_that_are_new(
    run_proxy: RunProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = list[TlsFiles]()

    def build(files: TlsFiles) -> ssl.SSLContext:
        built.append(files)
        return build_context(files)

    for module in (tls_contexts, http, client):  # each place that builds a context
        monkeypatch.setattr(module, "build_context", build)
    ca = make_certificate(tmp_path)
    secure = 'source = "http"\nurl = "https://127.0.0.1:9/t"\ntoken = "t"\n'
    more = "".join(
        f'[upstreams.{name}]\nbase_url = "https://127.0.0.1:9/v1"\ncredential = "{name}"\n'
        f'[credentials.{name}]\n{secure}headers = {{ x-app = "{name}" }}\n'
        for name in ("one", "two")
    )
    trusting = f'[upstreams.three]\nbase_url = "https://127.0.0.1:9/v1"\nca_file = "{ca}"\n'
    async with raw_upstream(ok) as upstream, run_proxy(upstream.url, more=more) as proxy:
        assert built == [TlsFiles()]
        await put_in_force(proxy, settings(tmp_path, upstream.url, more=more))
        assert built == [TlsFiles()]
        await put_in_force(proxy, settings(tmp_path, upstream.url, more=more + trusting))
        assert built == [TlsFiles(), TlsFiles(ca)]


async def test_a_changed_credential_fetches_a_new_token(
    run_proxy: RunProxy, gateway: RunningGateway, tmp_path: Path
) -> None:
    async with (
        run_proxy(gateway.url, credential=gateway.credential) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        assert await status_of(caller) == 400
        other = gateway.credential + "\nheaders = { x-app = 'other' }\n"
        old = proxy.services.credentials["corp"].source
        await put_in_force(proxy, settings(tmp_path, gateway.url, credential=other))
        assert await status_of(caller) == 400
        assert gateway.gateway.stats.token_fetches == 2
        assert proxy.services.credentials["corp"].source is not old


async def test_the_usage_of_callers_is_kept(run_proxy: RunProxy, tmp_path: Path) -> None:
    more = '[[access.keys]]\nname = "limited"\nkey = "sk-limited-5d21"\nrate = "3/hour"\n'
    async with (
        raw_upstream(ok) as upstream,
        run_proxy(upstream.url, more=more) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        statuses = [await status_of(caller, "sk-limited-5d21") for _ in range(2)]
        await put_in_force(proxy, settings(tmp_path, upstream.url, more=more))
        statuses += [await status_of(caller, "sk-limited-5d21") for _ in range(2)]
        assert statuses == [200, 200, 200, 429]


async def test_a_removed_caller_leaves_the_metrics_with_its_last_request(
    run_proxy: RunProxy, tmp_path: Path
) -> None:
    go_on = asyncio.Event()

    async def answer(talk: Conversation) -> None:
        if b"slow" in talk.request.body:
            await go_on.wait()
        usage = b'{"prompt_tokens": 2, "completion_tokens": 1}'
        await talk.answer(b'{"choices": [], "usage": %b}' % usage, JSON)

    removed, name = "sk-removed-5b1c", 'caller="removed"'
    more = f'[[access.keys]]\nname = "removed"\nkey = "{removed}"\nrate = "2/hour"\n'
    async with (
        raw_upstream(answer) as upstream,
        run_proxy(upstream.url, more=more) as proxy,
        raw_caller(proxy.url) as caller,
        raw_caller(proxy.url) as slow,
    ):

        def metrics() -> str:
            return proxy.services.metrics.render()[0].decode()

        assert [await status_of(caller, key) for key in (removed, KEY)] == [200, 200]
        await slow.send("POST", CHAT, JSON, body=b'{"model": "slow"}', key=removed)
        await until(lambda: len(upstream.requests) == 3)
        assert await status_of(caller, removed) == 429
        for family in ("requests", "sent_bytes", "tokens", "limit_refusals"):
            assert re.search(rf"llm_proxy_{family}_total\{{{name}", metrics())
        await put_in_force(proxy, settings(tmp_path, upstream.url))
        assert name not in metrics()
        go_on.set()
        assert (await slow.answer()).status == 200
        await until(lambda: len(proxy.exchanges) == 4)  # and its caller is counted again
        await until(lambda: name not in metrics())
        assert 'requests_total{caller="tester"' in metrics()


async def test_the_limit_of_a_body_changes_too(run_proxy: RunProxy, tmp_path: Path) -> None:
    async with (
        raw_upstream(ok) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        more = "[limits]\nmax_body_bytes = 1\n"
        await put_in_force(proxy, settings(tmp_path, upstream.url, more=more))
        await caller.send("POST", CHAT, JSON, body=b"{}")
        answer = await caller.answer()
        assert json.loads(await caller.body(answer))["error"]["code"] == "request_too_large"


async def test_unusable_settings_change_nothing(run_proxy: RunProxy, tmp_path: Path) -> None:
    async with (
        raw_upstream(ok) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        file = make_certificate(tmp_path).rename(tmp_path / "client.pem")
        credential = 'source = "http"\nurl = "https://127.0.0.1:9/t"\ntoken = "t"\n'
        credential += 'client_cert = "client.pem"\n'
        bad = settings(tmp_path, upstream.url, key="sk-new-key-91", credential=credential)
        file.write_text("")  # after the settings were checked
        with pytest.raises(ssl.SSLError):
            await put_in_force(proxy, bad)
        assert [await status_of(caller), await status_of(caller, "sk-new-key-91")] == [200, 401]


async def test_settings_that_need_a_restart_are_reported(run_proxy: RunProxy, tmp_path: Path) -> None:
    async with raw_upstream(ok) as upstream, run_proxy(upstream.url) as proxy:
        new = settings(tmp_path, upstream.url, more='[logs]\nlevel = "error"\n[cors]\norigins = ["*"]\n')
        with capture_logs() as lines:
            await put_in_force(proxy, new)
        assert [line["sections"] for line in lines if line["event"] == "restart_needed"] == [["cors", "logs"]]
        assert proxy.services.settings.cors is None
        assert {*NEEDS_RESTART} <= {*Settings.model_fields}


async def test_all_snapshots_are_closed_at_the_end_even_if_a_caller_still_streams(tmp_path: Path) -> None:
    async with raw_upstream(ok) as upstream:
        app = create_app(settings(tmp_path, upstream.url), Drain())
        async with app.test_app():
            snapshots = app_parts(app).snapshots
            first = snapshots.current
            first.users.acquire()
            await reload(app, settings(tmp_path, upstream.url, key="sk-new-key-91"))
            assert snapshots.current is not first
            async with asyncio.timeout(PATIENCE):
                snapshots.close_all()
                await first.users.wait_until_unused()


CLUSTER = """
[credentials.cluster]
source = "static"
value = "static-upstream-token"
"""
NOWHERE = f"""
[shared]
redis_url = "unix:///nowhere"
encryption_key = "{"0" * 64}"
"""


async def test_a_credential_keeps_sending_the_token_of_another(run_proxy: RunProxy, tmp_path: Path) -> None:
    async def grant(talk: Conversation) -> None:
        await talk.answer(b'{"token": "t"}', JSON)

    async with raw_upstream(grant) as issuer, raw_upstream(ok) as upstream:
        credential = (
            f'source = "http"\nurl = "{issuer.url}/token"\ntoken = "token"\n'
            'headers = { x-subject = "${credential:cluster}" }\n'
        )
        async with (
            run_proxy(upstream.url, credential=credential, more=CLUSTER) as proxy,
            raw_caller(proxy.url) as caller,
        ):
            await status_of(caller)
            first = proxy.services.credentials["corp"].source
            for timeout in (11, 12):  # of the other credential, which is then rebuilt
                more = CLUSTER + f"timeout = {timeout}\n"
                await put_in_force(proxy, settings(tmp_path, upstream.url, credential=credential, more=more))
                source = proxy.services.credentials["corp"].source
                assert source is first
                await source._flights._source.fetch()  # without back-off and cool-down
            assert len(issuer.requests) == 3
            assert all(request.header("x-subject") for request in issuer.requests)


async def test_a_reload_that_depends_on_a_restart_is_rejected(run_proxy: RunProxy, tmp_path: Path) -> None:
    credential = 'source = "exec"\ncommand = ["true"]\nsharing = "redis_required"\n'
    embedded = "[gateway]\n[upstreams.x]\nbase_url = 'embedded:/v1'\n"
    async with (
        raw_upstream(ok) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        for new, told in (
            (settings(tmp_path, upstream.url, credential=credential, more=NOWHERE), "shared"),
            (settings(tmp_path, upstream.url, more=embedded), "gateway"),
        ):
            with capture_logs() as lines, pytest.raises(SettingsError, match=told):
                await put_in_force(proxy, new)
            assert [line["event"] for line in lines if line["event"] == "restart_needed"] == []
        assert await status_of(caller) == 200


async def test_changing_access_sharing_needs_a_restart(run_proxy: RunProxy, tmp_path: Path) -> None:
    async with raw_upstream(ok) as upstream, run_proxy(upstream.url) as proxy:
        new = settings(tmp_path, upstream.url, more=NOWHERE)
        new = new.model_copy(update={"access": new.access.model_copy(update={"sharing": "redis"})})
        with capture_logs() as lines:
            await put_in_force(proxy, new)
        (told,) = [line["sections"] for line in lines if line["event"] == "restart_needed"]
        assert told == ["access.sharing", "shared"]


async def test_a_failed_reload_keeps_no_resources(run_proxy: RunProxy, tmp_path: Path) -> None:
    file = make_certificate(tmp_path).rename(tmp_path / "client.pem")
    bad = (
        '[credentials.z]\nsource = "http"\nurl = "https://a.test"\ntoken = "t"\nclient_cert = "client.pem"\n'
    )
    async with raw_upstream(ok) as upstream, run_proxy(upstream.url) as proxy:
        source = proxy.services.credentials["corp"].source
        new = settings(tmp_path, upstream.url, more=bad)
        file.write_text("no certificate")  # after the settings were checked
        for _ in range(3):
            with pytest.raises(ssl.SSLError):
                await put_in_force(proxy, new)
        other = 'source = "static"\nvalue = "another-token"\n'
        await put_in_force(proxy, settings(tmp_path, upstream.url, credential=other))
        await until(lambda: source._flights.is_closed)


async def test_a_reload_during_shutdown_does_not_delay_it(tmp_path: Path) -> None:
    async with raw_upstream(ok) as upstream, asyncio.TaskGroup() as group, asyncio.timeout(PATIENCE):
        app = create_app(settings(tmp_path, upstream.url), Drain())
        async with app.test_app():
            new = settings(tmp_path, upstream.url, key="sk-new-key-91")
            reloading = group.create_task(reload(app, new))
            await asyncio.sleep(0)
        await reloading
