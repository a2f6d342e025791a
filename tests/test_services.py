"""The long-lived objects: when they are ready, and that they are closed in reverse order."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.credentials import CachedTokenSource, MemoryTokenStore
from proxy.drain import Drain
from proxy.services import Services, open_services, open_worker_state
from proxy.settings import Settings, load_settings
from proxy.upstream.client import UpstreamClient
from proxy.wire.endpoints import CHAT_COMPLETIONS, EMBEDDINGS
from tests.conftest import KEY, SETTINGS, STATIC
from tests.loopback import until
from tests.raw_upstream import Conversation, raw_upstream
from tests.signing_keys import certificate_pem

NOWHERE = "http://127.0.0.1:1"


def settings(folder: Path, credential: str = STATIC, more: str = "", upstream: str = NOWHERE) -> Settings:
    """Return a whole configuration."""
    path = folder / "proxy.toml"
    path.write_text(SETTINGS.format(key=KEY, upstream=upstream, credential=credential, options="", more=more))
    return load_settings(path, {})


@contextlib.asynccontextmanager
async def serving(settings: Settings, drain: Drain | None = None) -> AsyncIterator[Services]:
    """Open the state of a worker, and the services of one configuration."""
    async with (
        open_worker_state(settings, drain or Drain()) as state,
        open_services(settings, state) as services,
    ):
        yield services


def asks(url: str) -> str:
    """Return a credential with a token endpoint."""
    return f'source = "http"\nurl = "{url}/token"\ntoken = "token"\ndefault_ttl = 300'


async def refuse(talk: Conversation) -> None:
    """Answer like a token endpoint that fails."""
    await talk.answer(b"{}", status="500 No")


async def grant(talk: Conversation) -> None:
    """Answer like a token endpoint that works."""
    await talk.answer(b'{"token": "live"}', "Content-Type: application/json")


async def say_nothing(talk: Conversation) -> None:
    """Behave like a token endpoint that never answers."""
    await talk.caller_left()


async def test_every_upstream_has_a_client_and_every_credential_a_source(tmp_path: Path) -> None:
    async with serving(settings(tmp_path)) as services:
        chat, embed = services.routing.choose(CHAT_COMPLETIONS), services.routing.choose(EMBEDDINGS)
        assert (chat.upstream, embed.upstream) == ("chat", "embed")
        assert chat.client is not embed.client
        token = await services.credentials["corp"].source.get()
        assert token.secret.reveal() == "static-upstream-token"
        assert services.access.identify([(b"x-api-key", KEY.encode())], None, None).name == "tester"


async def test_a_token_is_fetched_before_the_first_request(tmp_path: Path) -> None:
    async with (
        raw_upstream(grant) as issuer,
        serving(settings(tmp_path, asks(issuer.url))) as services,
    ):
        await until(lambda: services.credentials["corp"].source.remaining is not None)
        assert len(issuer.requests) == 1


async def test_it_is_ready_until_it_drains(tmp_path: Path) -> None:
    drain = Drain()
    async with serving(settings(tmp_path), drain) as services:
        assert services.ready
        drain.started = True
        assert not services.ready


async def test_a_cold_start_is_ready(tmp_path: Path) -> None:
    async with (
        raw_upstream(say_nothing) as issuer,
        serving(settings(tmp_path, asks(issuer.url))) as services,
    ):
        await until(lambda: len(issuer.requests) == 1)
        assert services.credentials["corp"].source.remaining is None
        assert services.ready


async def test_a_default_credential_without_a_token_is_not_ready(tmp_path: Path) -> None:
    async with (
        raw_upstream(refuse) as issuer,
        serving(settings(tmp_path, asks(issuer.url))) as services,
    ):
        await until(lambda: not services.credentials["corp"].source.healthy)
        assert not services.ready


async def test_a_failed_refresh_with_a_token_in_hand_stays_ready(tmp_path: Path) -> None:
    async def once(talk: Conversation) -> None:
        await (grant if len(issuer.requests) == 1 else refuse)(talk)

    async with (
        raw_upstream(once) as issuer,
        serving(settings(tmp_path, asks(issuer.url))) as services,
    ):
        source = services.credentials["corp"].source
        await until(lambda: source.remaining is not None)
        source.prefetch()
        await until(lambda: source.reading().backoff_seconds > 0)
        assert services.ready


async def test_only_the_default_upstreams_credential_counts(tmp_path: Path) -> None:
    async with raw_upstream(refuse) as issuer:
        more = f'[upstreams.other]\nbase_url = "{NOWHERE}"\ncredential = "broken"\n'
        more += f"[credentials.broken]\n{asks(issuer.url)}"
        async with serving(settings(tmp_path, STATIC, more)) as services:
            await until(lambda: not services.credentials["broken"].source.healthy)
            assert services.ready


async def test_a_default_upstream_without_a_credential_is_ready(tmp_path: Path) -> None:
    path = tmp_path / "open.toml"
    path.write_text(f'[access]\nmode = "open"\n[upstreams.chat]\nbase_url = "{NOWHERE}"\n')
    async with serving(load_settings(path, {})) as services:
        assert services.ready


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Record everything that is closed, in order."""
    order = list[object]()
    for kind in (UpstreamClient, CachedTokenSource, MemoryTokenStore):
        original = kind.close

        async def close(self: object, original: object = original) -> None:
            order.append(self)
            assert callable(original)
            await original(self)

        monkeypatch.setattr(kind, "close", close)
    return order


async def test_everything_is_closed_in_reverse(tmp_path: Path, closed: list[object]) -> None:
    async with serving(settings(tmp_path)) as services:
        chat = services.routing.choose(CHAT_COMPLETIONS).client
        embed = services.routing.choose(EMBEDDINGS).client
        source = services.credentials["corp"].source
        assert closed == []
    assert closed[:-1] == [embed, chat, source]
    assert isinstance(closed[-1], MemoryTokenStore)
    assert chat.is_closed()
    assert embed.is_closed()


async def test_everything_is_closed_when_the_worker_fails(tmp_path: Path, closed: list[object]) -> None:
    with pytest.raises(ZeroDivisionError):
        async with serving(settings(tmp_path)):
            raise ZeroDivisionError
    assert [type(thing) for thing in closed] == [
        UpstreamClient, UpstreamClient, CachedTokenSource, MemoryTokenStore,
    ]  # fmt: skip


async def test_a_start_that_fails_closes_what_was_open_by_then(tmp_path: Path, closed: list[object]) -> None:
    certificate = tmp_path / "ca.pem"
    certificate.write_text(certificate_pem("p256"))
    more = f'[upstreams.other]\nbase_url = "https://x.test"\nca_file = "{certificate}"'
    loaded = settings(tmp_path, more=more)
    certificate.write_text("nothing")  # it existed when the settings were checked
    with pytest.raises(OSError):  # noqa: PT011  whatever the TLS library says
        async with serving(loaded):
            pass
    assert [type(thing) for thing in closed] == [
        UpstreamClient, UpstreamClient, CachedTokenSource, MemoryTokenStore,
    ]  # fmt: skip


async def test_a_fetch_under_way_ends_with_the_worker(tmp_path: Path) -> None:
    async with raw_upstream(say_nothing) as issuer:
        async with serving(settings(tmp_path, asks(issuer.url))):
            await until(lambda: len(issuer.requests) == 1)
        await until(lambda: issuer.connections == 0)
