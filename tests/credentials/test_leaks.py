"""No token and no secret appears in anything that is printed, raised or logged."""

import asyncio
import io
import logging
import pickle
import traceback
from collections.abc import Iterator

import pytest
import structlog
from pydantic import TypeAdapter

from proxy.credentials import CachedTokenSource, MemoryTokenStore, Token, UpstreamCredential
from proxy.credentials.build import LiveTokens, build_credentials
from proxy.credentials.sources import TokenFetchError
from proxy.credentials.sources.http import HttpTokenSource
from proxy.credentials.sources.local import StaticTokenSource
from proxy.credentials.token import FetchedToken
from proxy.errors import CredentialError, TokenUnavailable
from proxy.secret import Secret
from proxy.settings import CredentialSettings, HttpCredential, Inject, Logs
from proxy.settings.interpolation import LateReference, LateText
from proxy.telemetry import configure_logs
from tests.credentials.fakes import build_token, local_machine, reject, serve
from tests.credentials.sources.token_endpoint import TokenEndpoint, recipe_of
from tests.loopback import serve_on_loopback

TOKEN = "canary-token-7f3a"
SECRET = "canary-secret-91bc"


def recipe(url: str) -> HttpCredential:
    """Return a recipe with a secret in every place that may contain one."""
    return recipe_of(
        url=url,
        query={"key": Secret(SECRET)},
        headers={"X-Key": Secret(SECRET)},
        json={"deep": [{"appSecret": Secret(SECRET)}]},
        basic=("id", Secret(SECRET)),
    )


def shows(*things: object) -> str:
    """Return everything that Python prints for some objects."""
    forms = [f"{thing} {thing!r} {[thing]} {thing!s:>3}" for thing in things]
    return " ".join(forms + [repr(vars(thing)) for thing in things if hasattr(thing, "__dict__")])


async def test_no_object_shows_its_secret() -> None:
    fetched = FetchedToken(Secret(TOKEN), 300.0)
    asking = HttpTokenSource(recipe("http://127.0.0.1:1/token"))
    static = StaticTokenSource(Secret(TOKEN))
    store = MemoryTokenStore()
    machine = local_machine(static, store)
    token = await machine.get()
    await store.put(token, "corp", 0.0)
    shown = shows(
        Secret(SECRET),
        fetched,
        token,
        build_token(TOKEN),
        recipe("http://127.0.0.1:1/token"),
        asking,
        static,
        store,
        machine,
        UpstreamCredential(machine, Inject()),
        TokenUnavailable(reason="down"),
        TokenFetchError("down"),
    )
    assert "********" in shown
    assert TOKEN not in shown
    assert SECRET not in shown
    await asking.close()
    await machine.close()


def test_no_secret_leaves_by_pickle() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(build_token(TOKEN))


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Log everything as the service does, at its most verbose level."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    stream = io.StringIO()
    configure_logs(Logs(level="debug", format="json"), stream)
    yield stream
    structlog.reset_defaults()
    logging.basicConfig(handlers=handlers, level=level, force=True)


async def trouble(machine: CachedTokenSource, endpoint: TokenEndpoint) -> list[Exception]:
    """Go through a fetch, a rejection and every kind of failure; return the errors that callers get."""
    told: list[Exception] = []
    await serve(machine)
    use = await reject(machine)
    assert await use.token() is None  # the issuer returns the same token again
    for status, body in ((500, TOKEN), (403, TOKEN), (302, TOKEN), (200, f"<html>{TOKEN}</html>")):
        endpoint.status, endpoint.body = status, body.encode()
        endpoint.headers["Location"] = f"{endpoint.url}/{TOKEN}"
        cold = local_machine(HttpTokenSource(recipe(endpoint.url)))
        with pytest.raises(CredentialError) as caught:
            await cold.get()
        told.append(caught.value)
        await cold.close()
    return told


@pytest.mark.parametrize("debug", [True, False])
async def test_no_log_line_and_no_traceback_holds_a_token_or_a_secret(
    log: io.StringIO, *, debug: bool
) -> None:
    asyncio.get_running_loop().set_debug(debug)
    endpoint = TokenEndpoint()
    endpoint.says({"access_token": TOKEN, "expires_in": TOKEN})
    async with serve_on_loopback(endpoint.app()) as endpoint.url:
        source = HttpTokenSource(recipe(endpoint.url))
        machine = local_machine(source)
        told = await trouble(machine, endpoint)
        await machine.close()
        for error in told:
            structlog.get_logger().error("told", exc_info=error)
            logging.getLogger("other").error("told", exc_info=error)
    written = log.getvalue()
    events = [line for line in written.splitlines() if '"event":' in line]
    assert sum("token_fetched" in line for line in events) == 2
    assert sum("token_rejected" in line for line in events) == 1
    assert sum("token_fetch_failed" in line for line in events) == 4
    shown = written + "".join("".join(traceback.format_exception(error)) for error in told)
    assert TOKEN not in shown
    assert SECRET not in shown
    assert any(SECRET in asked.target for asked in endpoint.asked)  # it was sent, but is not in the message


async def test_no_log_line_holds_the_url_of_an_endpoint_that_denies_a_token(log: io.StringIO) -> None:
    """The URL may contain a key, and its endpoint rejects the token of another credential."""
    endpoint = TokenEndpoint()
    endpoint.says({})
    endpoint.status = 401
    async with serve_on_loopback(endpoint.app()) as endpoint.url:
        base = TypeAdapter[CredentialSettings](CredentialSettings).validate_python(
            {"source": "static", "value": TOKEN}
        )
        registry = build_credentials({"base": base}, MemoryTokenStore())
        authorization = LateText("", ("Bearer ", LateReference("credential", "base")))
        source = HttpTokenSource(
            recipe_of(url=f"{endpoint.url}?key={SECRET}", headers={"Authorization": authorization}),
            LiveTokens(registry),
        )
        for _ in range(3):
            with pytest.raises(TokenFetchError):
                await source.fetch()
        await source.close()
        await registry.close()
    (line,) = [line for line in log.getvalue().splitlines() if "token_denied" in line]
    assert endpoint.url in line
    assert SECRET not in log.getvalue()
    assert all(SECRET in asked.target for asked in endpoint.asked)


def test_a_fingerprint_contains_no_part_of_the_token() -> None:
    token: Token = build_token(TOKEN)
    assert token.fingerprint not in TOKEN
    assert TOKEN.encode() not in token.digest
