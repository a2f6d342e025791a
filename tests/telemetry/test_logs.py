"""Logs: one JSON line per event from any logger, without secrets."""

import asyncio
import io
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quart import Quart, Response

from proxy.app import create_app
from proxy.lifecycle import exchange as exchange_scope
from proxy.secret import MASK, Secret
from proxy.settings import Logs, load_settings
from proxy.telemetry import configure_logs, exchange_record, get_logger, request_context
from proxy.telemetry.logs import protect
from tests.conftest import KEY, RECIPE, SETTINGS, RunningGateway, RunProxy
from tests.loopback import serve_on_loopback, until
from tests.pace import PATIENCE
from tests.raw_caller import raw_caller

CANARY = "canary-5d1e"
PROMPT = "canary-prompt-77aa"


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def log_to(stream: io.StringIO, **settings: Any) -> io.StringIO:
    """Configure the logs to write to a stream."""
    configure_logs(Logs(**settings), stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """Return the written lines, each parsed as JSON and ended by LF."""
    text = stream.getvalue()
    assert text.endswith("\n") or not text
    return [json.loads(line) for line in text.split("\n")[:-1]]


def test_an_event_is_one_json_line_with_time_level_and_component() -> None:
    stream = log_to(io.StringIO(), format="json")
    get_logger("room").info("something_happened", number=1, text="é")
    (line,) = lines(stream)
    moment = line.pop("timestamp")
    assert moment.endswith("Z")
    assert line == {
        "event": "something_happened",
        "level": "info",
        "component": "room",
        "number": 1,
        "text": "é",
    }


@pytest.mark.parametrize(
    ("stream", "chosen", "is_json"),
    [
        (io.StringIO, "auto", True),
        (io.StringIO, "json", True),
        (io.StringIO, "console", False),
        (Terminal, "auto", False),
        (Terminal, "json", True),
    ],
)
def test_the_format_follows_the_setting_and_the_stream(
    stream: Callable[[], io.StringIO], chosen: str, *, is_json: bool
) -> None:
    out = log_to(stream(), format=chosen)
    get_logger("room").info("something_happened")
    assert "something_happened" in out.getvalue()
    assert out.getvalue().startswith("{") == is_json


def test_only_a_terminal_gets_colours() -> None:
    plain, coloured = io.StringIO(), Terminal()
    for stream in (plain, coloured):
        log_to(stream, format="console")
        get_logger("room").info("something_happened")
    assert "\x1b[" not in plain.getvalue()
    assert "\x1b[" in coloured.getvalue()


def test_lines_are_written_to_standard_error_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(Logs(format="json"))
    get_logger("room").warning("something_happened")
    logging.getLogger("lib").warning("so did this")
    told = capsys.readouterr()
    assert told.out == ""
    assert [json.loads(line)["event"] for line in told.err.splitlines()] == [
        "something_happened",
        "so did this",
    ]


LEVELS = ("debug", "info", "warning", "error")


@pytest.mark.parametrize("level", LEVELS)
def test_lines_below_the_level_are_not_written(level: str) -> None:
    stream = log_to(io.StringIO(), format="json", level=level)
    for written in LEVELS:
        getattr(get_logger("room"), written)("own")
        getattr(logging.getLogger("lib"), written)("foreign")
    own = [line["level"] for line in lines(stream) if line["event"] == "own"]
    foreign = [line["level"] for line in lines(stream) if line["event"] == "foreign"]
    assert own == list(LEVELS[LEVELS.index(level) :])
    # Below warning, libraries log a lot, and may log secrets.
    assert foreign == [name for name in own if name in {"warning", "error"}]


def test_the_standard_library_writes_to_the_same_stream_in_the_same_shape() -> None:
    stream = log_to(io.StringIO(), format="json")
    with request_context("id-1"):
        logging.getLogger("some.library").warning("it %s\n%d times", "happened", 3)
    (line,) = lines(stream)
    line.pop("timestamp")
    assert line == {
        "event": "it happened\n3 times",
        "level": "warning",
        "logger": "some.library",
        "request_id": "id-1",
    }


def test_setting_up_twice_writes_each_line_once() -> None:
    first, second = io.StringIO(), io.StringIO()
    log_to(first, format="json")
    log_to(second, format="json")
    get_logger("room").info("own")
    logging.getLogger("lib").error("foreign")
    assert first.getvalue() == ""
    assert [line["event"] for line in lines(second)] == ["own", "foreign"]


FORGERIES = [
    'x\n{"event": "forged"}',
    'x\r\n{"event": "forged"}',
    '", "event": "forged',
    '"}\n{"event": "forged"}',
    "x\u2028y\u2029z\x85",
    "\x00\x1b[2J\x7f",
    "\\",
]


@pytest.mark.parametrize("text", FORGERIES)
def test_no_text_forges_a_line(text: str) -> None:
    stream = log_to(io.StringIO(), format="json")
    get_logger("room").info(text, value=text)
    logging.getLogger("lib").warning(text)
    own, foreign = lines(stream)
    assert (own["event"], own["value"]) == (text, text)
    assert foreign["event"] == text


@given(st.text(alphabet=st.characters(exclude_categories=())), st.text())
def test_any_text_makes_exactly_one_line_that_parses(event: str, value: str) -> None:
    stream = log_to(io.StringIO(), format="json")
    get_logger("room").info(event, value=value)
    (line,) = lines(stream)
    assert (line["event"], line["value"]) == (event, value)


def test_text_that_is_not_unicode_can_be_logged() -> None:
    """The operating system returns a file name in another encoding with lone surrogates."""
    stream = log_to(io.StringIO(), format="json")
    get_logger("room").error("failed", path="caf\udce9", secret=CANARY, wrapped=Secret(CANARY))
    (line,) = lines(stream)
    assert line["event"] == "failed"
    assert line["path"] == "caf\udce9"
    assert CANARY not in stream.getvalue()


UNSAFE = "\x00\x07\x08\x1b[2J\r\n\x7f\x85\x9b31m\xad\u061c\u200b\u200f\u2028\u202e\u2066\ufeff\U000e0041"


@pytest.mark.parametrize("chosen", ["json", "console"])
@pytest.mark.parametrize("place", ["event", "value", "library", "exception"])
def test_no_control_character_reaches_a_terminal(chosen: str, place: str) -> None:
    stream = log_to(io.StringIO(), format=chosen)
    if place == "event":
        get_logger("room").info(UNSAFE)
    elif place == "value":
        get_logger("room").info("x", model=UNSAFE, models=[UNSAFE], by_name={"model": UNSAFE})
    elif place == "library":
        logging.getLogger("lib").warning("%s", UNSAFE)
    else:
        get_logger("room").error("x", exc_info=ValueError(UNSAFE))
    told = stream.getvalue()
    allowed = {"\n"} if place == "exception" and chosen == "console" else set()
    assert told.endswith("\n")
    assert {char for char in told[:-1] if not char.isprintable()} <= allowed


@pytest.mark.parametrize("name", ["path", "model", "user_agent", "reason", "anything"])
def test_a_long_field_is_cut(name: str) -> None:
    stream = log_to(io.StringIO(), format="json")
    get_logger("room").info("x", **{name: "y" * 2_000_000})
    assert len(stream.getvalue()) < 2000
    (line,) = lines(stream)
    assert line[name].endswith("(2000000 characters)")


def test_any_object_can_be_logged_and_a_secret_is_masked() -> None:
    stream = log_to(io.StringIO(), format="json")
    get_logger("room").info("x", held=Secret(CANARY), deep={"a": [Secret(CANARY)]}, kind=object, none=None)
    (line,) = lines(stream)
    assert MASK in line["held"]
    assert MASK in line["deep"]["a"][0]
    assert CANARY not in stream.getvalue()


SENSITIVE = [
    "access_token", "api_key", "api-key", "app_secret", "authorization", "client_secret", "cookie", "key",
    "password", "proxy-authorization", "secret", "set-cookie", "token", "x-api-key",
]  # fmt: skip


@pytest.mark.parametrize("name", SENSITIVE)
@pytest.mark.parametrize("write", [str.lower, str.upper, str.title])
def test_the_value_of_a_sensitive_name_is_masked(name: str, write: Callable[[str], str]) -> None:
    stream = log_to(io.StringIO(), format="json")
    name = write(name)
    get_logger("room").info("x", **{name: CANARY}, headers={name: CANARY, "accept": "y"})
    (line,) = lines(stream)
    assert line[name] == MASK
    assert line["headers"] == {name: MASK, "accept": "y"}


def test_masking_leaves_the_callers_own_mapping_alone() -> None:
    headers = {"Authorization": "Bearer x"}
    told = protect(None, "info", {"event": "x", "headers": headers})
    assert headers == {"Authorization": "Bearer x"}
    assert told == {"event": "x", "headers": {"Authorization": MASK}}


@pytest.mark.parametrize("chosen", ["json", "console"])
@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_a_traceback_shows_no_local_variables(stream: Callable[[], io.StringIO], chosen: str) -> None:
    out = log_to(stream(), format=chosen)

    def fail(token: str, key: str, prompt: dict[str, str]) -> None:
        raise ValueError("words without a secret")

    canaries = [f"{CANARY}{number}" for number in range(3)]
    try:
        fail(canaries[0], canaries[1], {"content": canaries[2]})
    except ValueError as error:
        get_logger("room").exception("failed")
        get_logger("room").error("failed", exc_info=error)
        get_logger("room").error("failed", exc_info=sys.exc_info())
        logging.getLogger("lib").exception("failed")
        logging.getLogger("lib").error("failed", exc_info=error, stack_info=True)
    assert out.getvalue().count("words without a secret") >= 5
    assert "test_logs.py" in out.getvalue()
    assert CANARY not in out.getvalue()


def test_a_traceback_of_many_lines_is_part_of_one_line() -> None:
    stream = log_to(io.StringIO(), format="json")
    try:
        raise ValueError("one\ntwo")
    except ValueError:
        get_logger("room").exception("failed")
    (line,) = lines(stream)
    assert line["exception"].endswith("ValueError: one\ntwo")
    assert "Traceback (most recent call last)" in line["exception"]


def test_an_unraised_error_is_logged_without_a_traceback() -> None:
    stream = log_to(io.StringIO(), format="json")
    get_logger("room").error("failed", exc_info=ValueError("bare"))
    (line,) = lines(stream)
    assert line["exception"] == "ValueError: bare"


def test_every_line_in_a_request_carries_its_id_and_no_line_after_it() -> None:
    stream = log_to(io.StringIO(), format="json")
    get_logger("room").info("before")
    with request_context("outer"):
        get_logger("room").info("in_outer")
        with request_context("inner"):
            get_logger("other").info("in_inner")
        get_logger("room").info("in_outer")
    get_logger("room").info("after")
    assert [(line["event"], line.get("request_id")) for line in lines(stream)] == [
        ("before", None),
        ("in_outer", "outer"),
        ("in_inner", "inner"),
        ("in_outer", "outer"),
        ("after", None),
    ]


def test_the_id_is_removed_when_the_request_fails() -> None:
    stream = log_to(io.StringIO(), format="json")
    with pytest.raises(ZeroDivisionError), request_context("id-1"):
        raise ZeroDivisionError
    get_logger("room").info("after")
    assert "request_id" not in lines(stream)[0]


async def test_requests_at_once_never_mix_their_ids() -> None:
    stream = log_to(io.StringIO(), format="json")
    together = asyncio.Barrier(20)

    async def request(number: int) -> None:
        with request_context(f"id-{number}"):
            await together.wait()
            get_logger("room").info("within", number=number)

    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(request(number))
    told = {line["number"]: line["request_id"] for line in lines(stream)}
    assert told == {number: f"id-{number}" for number in range(20)}


async def test_the_log_has_no_token_key_or_prompt(
    tmp_path: Path, gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = log_to(io.StringIO(), format="json", level="debug")
    # A logger keeps the stream of its first use, so these loggers are only for this test.
    monkeypatch.setattr(exchange_scope, "_log", get_logger("exchange"))
    monkeypatch.setattr(exchange_record, "_log", get_logger("bodies"))
    path = tmp_path / "proxy.toml"
    credential = RECIPE.format(issuer=gateway.url)
    path.write_text(
        SETTINGS.format(key=KEY, upstream=gateway.url, credential=credential, options="", more="")
    )
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": PROMPT}], "stream": True})
    async with serve_on_loopback(create_app(load_settings(path, {}))) as url, raw_caller(url) as caller:

        async def ask(target: str, sent: str, *headers: str, key: str | None = KEY) -> int:
            await caller.send(
                "POST", target, "Content-Type: application/json", *headers, body=sent.encode(), key=key
            )
            answer = await caller.answer()
            await caller.body(answer)
            return answer.status

        assert await ask("/v1/chat/completions", body) == 200
        assert await ask(f"/v1/echo?key={KEY}", body, f"X-Api-Key: {KEY}", f"Cookie: k={KEY}") == 200
        gateway.gateway.tokens.revoke_all()
        assert await ask("/v1/chat/completions", body) == 200
        assert await ask("/v1/chat/completions", body, key=CANARY) == 401
        assert await ask("/v1/chat/completions", body[:-5]) == 400
        assert await ask("/nope", body) == 404
        assert await ask(f"/nope%3Fkey={CANARY}", body) == 404
    told = stream.getvalue()
    assert [line["outcome"] for line in lines(stream) if line["event"] == "exchange"] == [
        "ok", "ok", "ok", "invalid_api_key", "invalid_request", "not_found", "not_found",
    ]  # fmt: skip
    assert gateway.gateway.stats.token_fetches == 2
    for secret in (KEY, PROMPT, CANARY, "demo-secret", *gateway_tokens(gateway)):
        assert secret not in told


LIMITED = """
[[access.keys]]
name = "limited"
key = "sk-limited-5d21-90ab"
models = ["cheap*"]
"""
CHEAP = b'{"model": "cheap"}'
FORM = (
    b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\ncheap\r\n'
    b'--b\r\nContent-Disposition: form-data; name="my %b model"\r\n\r\nx\r\n--b--\r\n'
) % PROMPT.encode()
AS_JSON, AS_FORM = "Content-Type: application/json", "Content-Type: multipart/form-data; boundary=b"
CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("target", "headers", "body"),
    [
        (f"/v1/models%3Fapi_key={CANARY}", (), b""),
        (f"/v1/models/cheap%3Fapi_key={CANARY}", (), b""),
        (f"/v1/chat/completions;api_key={CANARY}", (AS_JSON,), CHEAP),
        (f"/v1/new%3Fapi_key={CANARY}", (AS_JSON,), CHEAP),
        (f"/nothing/%2Fuser:{CANARY}@upstream.test", (), b""),
        (f"http://user:{CANARY}@upstream.test/v1/models", (), b""),
        (f"user:{CANARY}@upstream.test:443", (), b""),
        (CHAT, (AS_JSON,), b'{"model": "cheap", "my %b model": 1}' % PROMPT.encode()),
        (CHAT, (AS_JSON,), b'{"model": "cheap", "%b": 1' % PROMPT.encode()),
        (CHAT, (AS_JSON,), b'{"%b": 1} %b' % (PROMPT.encode(), PROMPT.encode())),
        (CHAT, (AS_JSON,), b'{"%b": \xff}' % PROMPT.encode()),
        (CHAT, (AS_JSON,), b'["%b"]' % PROMPT.encode()),
        (CHAT, (AS_JSON, f"X-{CANARY}-Model: 1"), CHEAP),
        (f"{CHAT}?model-{CANARY}=1", (AS_JSON,), CHEAP),
        (CHAT, (f"Content-Type: {CANARY}/{CANARY}",), CHEAP),
        (CHAT, (AS_JSON, f"Content-Encoding: {CANARY}"), CHEAP),
        ("/v1/audio/transcriptions", (AS_FORM,), FORM),
    ],
)
@pytest.mark.parametrize("key", [KEY, "sk-limited-5d21-90ab", CANARY])
async def test_no_text_of_a_caller_is_logged_however_the_request_is_rejected(
    run_proxy: RunProxy, target: str, headers: tuple[str, ...], body: bytes, key: str
) -> None:
    async with (
        serve_on_loopback(Quart("answers 404 to everything")) as upstream,
        run_proxy(upstream, more=LIMITED) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        method = "CONNECT" if target.startswith("user:") else "POST" if body else "GET"
        await caller.send(method, target, *headers, body=body, key=key)
        answer = await caller.answer()
        assert answer.status >= 400
        await until(lambda: bool(proxy.exchanges) or any("rejected" in line["event"] for line in proxy.lines))
        told = repr(proxy.lines)
    assert CANARY not in told
    assert PROMPT not in told


def gateway_tokens(gateway: RunningGateway) -> list[str]:
    """The common prefix of all tokens of the gateway."""
    token = gateway.gateway.tokens.issue(60.0)
    return [token, token[:8]]


@pytest.mark.parametrize("place", ["in_the_view", "after_the_view"])
async def test_a_defect_is_logged_with_its_cause_but_without_the_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    stream = log_to(io.StringIO(), format="json", level="debug")
    monkeypatch.setattr(exchange_scope, "_log", get_logger("exchange"))
    path = tmp_path / "proxy.toml"
    static = f'source = "static"\nvalue = "{CANARY}"'
    path.write_text(
        SETTINGS.format(key=KEY, upstream="http://127.0.0.1:1", credential=static, options="", more="")
    )
    app = create_app(load_settings(path, {}))

    def fail(prompt: str = PROMPT, key: str = KEY, token: str = CANARY) -> None:
        raise LookupError("words without a secret")

    async def broken(_path: str) -> str:
        if place == "in_the_view":
            fail()
        return "an answer"

    async def break_answer(response: Response) -> Response:
        if response.status_code == 200:
            fail()
        return response

    app.after_request(break_answer)
    app.view_functions["api_llm_proxy_at_root.any_v1_path"] = broken
    async with serve_on_loopback(app) as url, raw_caller(url) as caller:
        await caller.send("POST", "/v1/new", body=PROMPT.encode())
        answer = await caller.answer()
        assert answer.status == 500
        told = (await caller.body(answer)).decode() + stream.getvalue()
    defect, exchange = (line for line in lines(stream) if line["event"] in {"defect", "exchange"})
    assert defect["exception"].endswith("LookupError: words without a secret")
    assert defect["request_id"] == exchange["request_id"]
    assert (exchange["outcome"], exchange["reason"]) == ("internal_error", "LookupError")
    for secret in (KEY, PROMPT, CANARY):
        assert secret not in told
