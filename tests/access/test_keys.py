"""Who is calling: a known key and nothing else, on every route that is not marked public."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from quart import Quart
from werkzeug.routing import Rule

from proxy.access import AccessControl, Caller, is_loopback, is_public, public, uses_default_keys
from proxy.app import create_app
from proxy.errors import Unauthenticated
from proxy.secret import Secret
from proxy.settings import DEFAULT_CALLER_KEYS, Access, CallerKey, load_settings
from proxy.wire.paths import BASE_URLS
from tests.conftest import KEY, SETTINGS, STATIC
from tests.loopback import serve_on_loopback
from tests.raw_caller import RawAnswer, RawCaller, raw_caller
from tests.raw_upstream import Conversation, raw_upstream

HERE = "127.0.0.1"
SENTENCE = {
    "error": {
        "message": "Invalid API key",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_api_key",
    }
}
HOSTILE = [
    "' OR '1'='1",
    "' OR 1=1 --",
    '" OR ""="',
    "'; DROP TABLE keys; --",
    "%' UNION SELECT key FROM keys --",
    "%s%s%n",
    "{key}",
    "${env:KEY}",
    "{{7*7}}",
    "../../etc/passwd",
    "*",
    "null",
    "undefined",
    "true",
    "0",
    "Bearer",
    f"Bearer {KEY}",
    KEY[:-1],
    KEY + "x",
    KEY.upper(),
    f"{KEY},{KEY}",
    f'"{KEY}"',
    hashlib.sha256(KEY.encode()).hexdigest(),
    "你好",
    "ключ",
    "k\u0000ey",
    "é" * 50,
    "\u202eyek",
    "\ufeff" + KEY,
    "Ｋ" + KEY,
    "x" * 20_000,
]


def access(*keys: str, **more: str) -> AccessControl:
    """Return the access control of these keys, which are named by their positions."""
    callers = tuple(CallerKey(name=f"caller-{place}", key=Secret(key)) for place, key in enumerate(keys))
    return AccessControl(Access(keys=callers, **more))


def bearer(key: bytes) -> list[tuple[bytes, bytes]]:
    """Return the usual header of a key."""
    return [(b"host", b"localhost:5002"), (b"authorization", b"Bearer " + key)]


def refusal(control: AccessControl, headers: list[tuple[bytes, bytes]], client: str | None = HERE) -> str:
    """Return the body of the response to a rejected caller."""
    with pytest.raises(Unauthenticated) as caught:
        control.identify(headers, client, HERE)
    assert caught.value.status == 401
    assert dict(caught.value.headers) == {"WWW-Authenticate": "Bearer"}
    return json.dumps(caught.value.envelope())


def test_each_key_identifies_its_caller() -> None:
    control = access("sk-a", "sk-b", "sk-c")
    for place, key in enumerate([b"sk-a", b"sk-b", b"sk-c"]):
        assert control.identify(bearer(key), HERE, HERE) == Caller(f"caller-{place}")


def test_a_hashed_key_identifies_its_caller_too() -> None:
    digest = hashlib.sha256(b"sk-hashed").hexdigest()
    control = AccessControl(Access(keys=(CallerKey(name="hashed", sha256=digest),)))
    assert control.identify(bearer(b"sk-hashed"), "10.0.0.1", "10.0.0.2") == Caller("hashed")
    refusal(control, bearer(digest.encode()))


@pytest.mark.parametrize("header", [b"x-api-key", b"api-key"])
@pytest.mark.parametrize("value", [b"sk-a", b" sk-a ", b"\tsk-a"])
def test_a_key_is_accepted_in_either_of_its_headers(header: bytes, value: bytes) -> None:
    assert access("sk-a").identify([(header, value)], HERE, HERE) == Caller("caller-0")


@pytest.mark.parametrize("value", [b"Bearer sk-a", b"bearer sk-a", b"BEARER  sk-a ", b"bEaReR sk-a"])
def test_the_scheme_is_read_in_any_case(value: bytes) -> None:
    assert access("sk-a").identify([(b"authorization", value)], HERE, HERE) == Caller("caller-0")


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"")],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"sk-a")],
        [(b"authorization", b"Basic sk-a")],
        [(b"authorization", b"Basic sk-a"), (b"x-api-key", b"sk-a")],
        [(b"authorization", b"Bearer sk-a"), (b"x-api-key", b"sk-b")],
        [(b"authorization", b"Bearer sk-a"), (b"authorization", b"Bearer sk-b")],
        [(b"x-api-key", b"sk-a"), (b"api-key", b"")],
        [(b"proxy-authorization", b"Bearer sk-a")],
        [(b"cookie", b"api-key=sk-a")],
    ],
)
def test_a_missing_key_and_two_different_keys_get_the_same_error(
    headers: list[tuple[bytes, bytes]],
) -> None:
    assert json.loads(refusal(access("sk-a", "sk-b"), headers)) == SENTENCE


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([], "no key"),
        ([(b"authorization", b"")], "no key"),
        ([(b"authorization", b"Bearer ")], "no key"),
        ([(b"authorization", b"sk-a")], "the Authorization header does not begin with Bearer"),
        ([(b"authorization", b"Basic c2s=")], "the Authorization header does not begin with Bearer"),
        ([(b"x-api-key", b"sk-a"), (b"api-key", b"sk-b")], "two different keys"),
        ([(b"x-api-key", b"sk-b")], "unknown key"),
    ],
)
def test_the_log_says_why_a_key_was_rejected(headers: list[tuple[bytes, bytes]], reason: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        access("sk-a").identify(headers, HERE, HERE)
    assert caught.value.reason == reason


def test_the_same_key_in_two_headers_is_accepted() -> None:
    headers = [*bearer(b"sk-a"), (b"x-api-key", b"sk-a"), (b"api-key", b"sk-a")]
    assert access("sk-a").identify(headers, HERE, HERE) == Caller("caller-0")


@settings(max_examples=1000)
@given(st.one_of(st.binary(), st.text().map(str.encode), st.sampled_from(HOSTILE).map(str.encode)))
def test_invalid_keys_are_rejected_with_the_same_body(value: bytes) -> None:
    assume(value.strip() != KEY.encode())
    control = access(KEY)
    for headers in (bearer(value), [(b"x-api-key", value)]):
        assert json.loads(refusal(control, headers)) == SENTENCE


def may_be_configured(key: str) -> bool:
    """Return whether a key is not rejected as a placeholder."""
    try:
        CallerKey(name="x", key=Secret(key))
    except ValidationError:
        return False
    return True


@given(st.text(alphabet=st.characters(codec="ascii", categories=("L", "N", "P")), min_size=1))
def test_every_configurable_key_is_accepted(key: str) -> None:
    assume(key not in DEFAULT_CALLER_KEYS and may_be_configured(key))
    assert access("sk-other", key).identify(bearer(key.encode()), "10.0.0.1", "10.0.0.2") == Caller(
        "caller-1"
    )


async def answer_anything(talk: Conversation) -> None:
    """Answer anything."""
    await talk.answer(b"{}", "Content-Type: application/json")


def build_app(folder: Path, upstream: str) -> Quart:
    """Return the service with one key."""
    path = folder / "proxy.toml"
    path.write_text(SETTINGS.format(key=KEY, upstream=upstream, credential=STATIC, options="", more=""))
    return create_app(load_settings(path, {}))


async def test_hostile_keys_get_the_same_response(tmp_path: Path) -> None:
    answers = set()
    async with (
        raw_upstream(answer_anything) as upstream,
        serve_on_loopback(build_app(tmp_path, upstream.url)) as url,
        raw_caller(url) as caller,
    ):
        for key in HOSTILE:
            for header in (b"Authorization: Bearer ", b"x-api-key: "):
                line = header + key.replace("\0", "").encode()
                await caller.write(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n" + line + b"\r\n\r\n")
                answer = await caller.answer()
                names = tuple(sorted(name for name, _ in answer.headers))
                answers.add((answer.status, names, await caller.body(answer)))
    assert upstream.requests == []
    ((status, _, body),) = answers
    assert (status, json.loads(body)) == (401, SENTENCE)


@pytest.mark.parametrize("key", sorted(DEFAULT_CALLER_KEYS))
def test_default_keys_are_accepted_only_from_this_machine(key: str) -> None:
    control = access(key)
    assert control.identify(bearer(key.encode()), HERE, HERE) == Caller("caller-0")
    for client in ("10.0.0.1", "192.168.1.7", "::ffff:10.0.0.1", "2001:db8::1", "", None, "unix"):
        assert json.loads(refusal(control, bearer(key.encode()), client)) == SENTENCE
    for name in (b"x-forwarded-for", b"x-forwarded-whatever", b"forwarded", b"x-real-ip", b"via"):
        refusal(control, [*bearer(key.encode()), (name, b"127.0.0.1")])


@pytest.mark.parametrize("key", sorted(DEFAULT_CALLER_KEYS))
def test_a_hashed_default_key_is_still_a_default_key(key: str) -> None:
    section = Access(keys=(CallerKey(name="x", sha256=hashlib.sha256(key.encode()).hexdigest()),))
    assert uses_default_keys(section)
    refusal(AccessControl(section), bearer(key.encode()), "10.0.0.1")


def test_a_configured_key_is_accepted_from_anywhere() -> None:
    assert not uses_default_keys(Access(keys=(CallerKey(name="x", key=Secret("sk-a")),)))
    headers = [*bearer(b"sk-a"), (b"x-forwarded-for", b"10.9.9.9")]
    assert access("sk-a").identify(headers, "10.0.0.1", "10.0.0.2") == Caller("caller-0")


def test_open_mode_accepts_every_caller() -> None:
    control = access(mode="open")
    assert control.identify([], "10.0.0.1", "10.0.0.2").name == "open"
    assert control.identify(bearer(b"whatever"), None, None).name == "open"


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", "localhost"])
def test_addresses_of_this_machine_are_loopback_addresses(address: str) -> None:
    assert is_loopback(address)


@pytest.mark.parametrize(
    "address",
    [None, "", "0.0.0.0", "::", "10.0.0.1", "128.0.0.1", "::ffff:10.0.0.1", "localhost.evil.test", "127.1"],
)
def test_addresses_that_are_not_this_machines(address: str | None) -> None:
    assert not is_loopback(address)


def test_only_a_marked_view_is_public() -> None:
    def view() -> None: ...

    assert not is_public(view)
    assert public(view) is view
    assert is_public(view)


def samples(rule: Rule) -> Iterator[tuple[str, str]]:
    """Yield a request for each method of a rule."""
    path = re.sub(r"<(?:any\((\w+)[^>]*|[^>]*)>", lambda found: found[1] or "x", str(rule))
    for method in sorted(rule.methods or ()):
        yield method, path


async def ask(caller: RawCaller, method: str, target: str) -> tuple[RawAnswer, bytes]:
    """Send a request without a key."""
    await caller.send(method, target, key=None)
    answer = await caller.answer()
    return answer, b"" if method == "HEAD" else await caller.body(answer)


async def test_every_route_is_behind_the_key_check_or_marked_public(tmp_path: Path) -> None:
    asked = {True: 0, False: 0}
    async with raw_upstream(answer_anything) as upstream:
        app = build_app(tmp_path, upstream.url)
        async with serve_on_loopback(app) as url, raw_caller(url) as caller:
            for rule in app.url_map.iter_rules():
                marked = is_public(app.view_functions[rule.endpoint])
                for method, target in samples(rule):
                    answer, body = await ask(caller, method, target)
                    asked[marked] += 1
                    if marked:
                        # These are pages for browsers only; the others need their sections in the settings.
                        is_optional = target in {"/", *BASE_URLS} or target.startswith(
                            ("/internal/", "/status")
                        )
                        allowed = {200, 204, 404} if is_optional else {200, 204}
                        assert answer.status in allowed, (method, target)
                        continue
                    assert answer.status == 401, (method, target)
                    assert method == "HEAD" or json.loads(body) == SENTENCE
    assert upstream.requests == []
    assert asked[True] >= 3
    assert asked[False] >= 40
