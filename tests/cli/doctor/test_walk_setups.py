# ruff: noqa: E501 - a set-up a line
"""Broken set-ups: the doctor finds the fault of each and no other; correct set-ups pass every check."""

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from proxy.cli import main
from proxy.cli.doctor.catalogue import CATALOGUE
from tests.cli.doctor.gateways import REDIS_PASSWORD, TOKEN, serving_in_a_thread

Printed = pytest.CaptureFixture[str]
SECRET = "canary-secret-91bc"
KEY = "sk-canary-key-77b1"
CONTROLS = {chr(number) for number in range(32)} - {"\n"}
SETTINGS = """
[access]
keys = [{{ name = "ragflow", key = "sk-a-long-key-of-mine" }}]
[upstreams.chat]
base_url = "{{gateway}}/{gateway}/v1"
credential = "corp"
[credentials.corp]
source = "http"
url = "{issuer}"
json = {{ appSecret = "canary-secret-91bc" }}
token = "token"
expires = [{{ path = "expires_in", as = "seconds" }}]
{more}
"""
REDIS = '[shared]\nredis_url = "redis://:{password}@127.0.0.1:{port}/0"\nencryption_key = "' + "ab" * 32 + '"'


@dataclass(frozen=True)
class Setup:
    """A set-up, and the ids of its expected findings, without those of passed checks.

    "a or b" is one finding, where the timing of the network decides which.
    """

    name: str
    finds: tuple[str, ...]
    settings: str = ""
    arguments: tuple[str, ...] = ()
    status: int = 1


def config(
    name: str, *finds: str, gateway: str = "sound", issuer: str = "{gateway}/sound/token", more: str = "",
    edit: tuple[str, str] = ("", ""), status: int = 1, arguments: tuple[str, ...] = (),
) -> Setup:  # fmt: skip
    """Return a set-up with a configuration file."""
    text = SETTINGS.format(gateway=gateway, issuer=issuer, more=more)
    return Setup(name, finds, text.replace(*edit), arguments, status)


def url(name: str, *finds: str, at: str, status: int = 1, more: tuple[str, ...] = ()) -> Setup:
    """Return a set-up that tests an address from outside."""
    return Setup(name, finds, "", ("--url", at, *more), status)


def issuer(name: str, *finds: str, at: str, more: str = "", status: int = 1) -> Setup:
    """Return a set-up with a faulty token endpoint."""
    return config(name, *finds, issuer=f"{{gateway}}/{at}/token", more=more, status=status)


def gateway(name: str, *finds: str, at: str, status: int = 1, more: tuple[str, ...] = ()) -> Setup:
    """Return a set-up that tests the address of a faulty gateway."""
    return url(name, *finds, at=f"{{gateway}}/{at}/v1", status=status, more=more)


BASE = '"{gateway}/sound/v1"'
REPAIRED = ("[upstreams.chat]", '[upstreams.chat]\nrepairs = ["ragflow"]')
SECOND = """
[upstreams.other]
base_url = "{gateway}/sound/v1"
credential = "other"
[credentials.other]
source = "http"
url = "{gateway}/refuses/token"
token = "token"
[routes]
default = "chat"
embeddings = "other"
"""
SHORT = ("--timeout", "0.6")
SETUPS = [
    # --- settings and Redis
    config("a misspelt key", "settings_invalid", edit=("base_url", "base_ulr"), status=2),
    config("a variable that is not set", "settings_invalid", edit=("sk-a-long-key-of-mine", "${env:NOT_SET_ANYWHERE}"), status=2),
    config("a key that could be guessed", "key_weak", edit=("sk-a-long-key-of-mine", "abc"), status=0),
    config("no key required", "access_open", edit=('keys = [{ name = "ragflow", key = "sk-a-long-key-of-mine" }]', 'mode = "open"'), status=0),
    config("no Redis", "redis_unavailable", more=REDIS.format(password="x", port="{closed}")),
    config("a wrong password of Redis", "redis_rejects", more=REDIS.format(password="wrong-canary-1234", port="{redis}")),
    # --- on the way to the token endpoint
    config("an unknown host", "unknown_name", "skipped", "skipped", "no_embedding_model", issuer="http://auth.corp.invalid/token"),
    config("a closed port", "refused", issuer="http://127.0.0.1:{closed}/token"),
    config("a silent port", "read_timeout", issuer="http://127.0.0.1:{mute}/token", more="timeout = 0.3"),
    config("another protocol", "not_http", issuer="http://127.0.0.1:{ssh}/token"),
    config("TLS to a plain port", "not_tls", issuer="https://127.0.0.1:{plain}/token"),
    config("plain HTTP to a TLS port", "closed or reset", issuer="http://127.0.0.1:{tls}/token"),
    config("an expired certificate", "certificate_expired", issuer="https://127.0.0.1:{expired}/token", more='ca_file = "{expired_ca}"'),
    config("a self-signed certificate", "certificate_self_signed", issuer="https://127.0.0.1:{tls}/token"),
    config("a certificate for another name", "certificate_wrong_name", issuer="https://127.0.0.1:{other_name}/token", more='ca_file = "{other_name_ca}"'),
    config("a certificate of an unknown CA", "certificate_unknown_issuer", issuer="https://127.0.0.1:{issued}/token"),
    config("a certificate that expires soon", "certificate_expires_soon", "token_reply_empty", issuer="https://127.0.0.1:{soon}/token", more='ca_file = "{soon_ca}"'),
    # --- the token endpoint
    issuer("a wrong secret", "token_refused", at="refuses"),
    issuer("a wrong path to the token endpoint", "token_path_unknown", at="missing"),
    issuer("a token endpoint that redirects", "token_redirected", at="moved"),
    issuer("too many tokens", "token_rate_limited", at="limit"),
    issuer("a token endpoint that fails", "token_endpoint_failed", at="fails"),
    issuer("an empty reply", "token_reply_empty", at="empty"),
    issuer("a login page instead of a token", "token_reply_html", at="page"),
    issuer("text instead of JSON", "token_reply_not_json", at="text"),
    issuer("an error inside a 200", "token_no_success", at="error", more='success = { path = "code", equals = 0 }'),
    issuer("a wrong path in the reply", "token_missing", at="elsewhere"),
    config("a token that has expired", "token_already_expired", issuer="{gateway}/expired/token", edit=('path = "expires_in", as = "seconds"', 'path = "expires_at", as = "epoch"')),
    issuer("a token endpoint that hangs", "read_timeout", at="hangs", more="timeout = 0.3"),
    issuer("a lifetime that is too short", "lifetime_too_short", at="short"),
    issuer("a lifetime shorter than the refresh window", "refresh_window_too_short", at="hurried", status=0),
    issuer("a slow token endpoint", "token_slow", at="slow", more="timeout = 0.9", status=0),
    issuer("a reply without a lifetime", "lifetime_unreadable", at="no_life", status=0),
    issuer("a lifetime in the wrong unit", "lifetime_doubtful", at="odd_life", status=0),
    issuer("a clock that is ahead", "clock_ahead", at="behind", status=0),
    issuer("a clock that is behind", "clock_behind", at="ahead", status=0),
    Setup("a command that fails", ("token_failed",), SETTINGS.partition("[credentials")[0].format(gateway="sound") + '[credentials.corp]\nsource = "exec"\ncommand = ["sh", "-c", "exit 7"]\n'),
    # --- the gateway
    config("a base URL without its version", "base_url_no_version", edit=(BASE, '"{gateway}/sound"')),
    config("a base URL with a doubled version", "base_url_doubled", edit=(BASE, '"{gateway}/sound/v1/v1"')),
    config("a base URL with a version too many", "base_url_extra_version", edit=(BASE, '"{gateway}/unversioned/v1"')),
    config("a gateway that rejects the token", "token_rejected", gateway="refuses"),
    config("a gateway that is down", "refused", edit=(BASE, '"http://127.0.0.1:{closed}/v1"')),
    config("a gateway whose stream breaks", "stream_broken", gateway="cut"),
    config("a gateway that speaks HTTP/1.0", "http_1_0", gateway="old", status=0),
    config("a gateway that collects its streams", "buffered_whole", gateway="collected"),
    config("a model that does not exist", "model_unknown", gateway="no_model", arguments=("--model", "m-chta")),
    config("one of two credentials", "token_refused", "skipped", more=SECOND),
    # --- an address from outside
    gateway("a wrong key", "key_rejected", at="refuses"),
    gateway("a key without permission", "key_forbids", at="limited_key"),
    gateway("a website", "answered_html", at="page"),
    gateway("an address that answers nothing", "answered_nothing", at="empty"),
    gateway("a redirect", "redirected", at="moved"),
    url("an endpoint in the base URL", "base_url_has_endpoint", at="{gateway}/sound/v1/chat/completions"),
    url("an address without /v1", "base_url_no_version", at="{gateway}/sound"),
    url("an address with a wrong path", "base_url_wrong_path", at="{nginx}/nothing/v1"),
    gateway("a wrong path, whatever the model", "models_missing", "path_unknown", at="nowhere"),
    gateway("no list of models", "models_missing", "no_chat_model", at="no_list", status=0),
    gateway("a model that is not listed", "model_not_listed", at="sound", status=0, more=("--model", "m-other")),
    gateway("a wrong model", "model_not_listed", "model_unknown", at="no_model", more=("--model", "m-other")),
    gateway("a limit that is reached", "rate_limited", at="limit"),
    gateway("a gateway that fails", "server_failed", at="broken"),
    gateway("a gateway that refuses RAGFlow's fields", "request_rejected", at="strict"),
    gateway("a proxy without its gateway", "behind_unreachable", at="dead_behind"),
    gateway("a proxy without a valid token", "behind_token_rejected", at="no_token_behind"),
    gateway("a gateway that hangs", "read_timeout", at="hangs", more=SHORT),
    gateway("an error in a 200", "error_in_200", at="error_inside"),
    gateway("a model that says nothing", "stream_empty", at="silent"),
    gateway("a gateway that does not stream", "not_streamed", at="whole_only"),
    gateway("a stream without an end", "stream_unfinished", at="unfinished"),
    gateway("a stream that breaks", "stream_broken", at="cut"),
    gateway("a stream that breaks at once", "stream_broken", at="cut_at_once"),
    gateway("a stream that never begins", "no_response", at="never_begins", more=SHORT),
    gateway("a stream that stalls", "stream_stalled", at="stalls", more=SHORT),
    gateway("an error in a stream", "stream_error", at="fails_inside"),
    gateway("a stream without [DONE]", "stream_without_done", at="no_done", status=0),
    gateway("a delta that is null", "delta_null", at="null_delta", status=0),
    gateway("a chunk without choices", "choices_empty", at="no_choices", status=0),
    gateway("a usage on every chunk", "usage_repeated", at="usage_everywhere", status=0),
    gateway("a stream with a length", "buffered_whole", at="collected"),
    gateway("a stream that is compressed", "buffered_by_compression", at="gzipped"),
    gateway("a compressed stream that is cut", "stream_broken", at="gzip_cut"),
    gateway("a compression that was not asked for", "coding_unreadable", at="brotli"),
    gateway("a stream over HTTP/1.0", "buffered_by_http_1_0", at="http_1_0"),
    gateway("a stream through a CDN", "buffered_by_cdn", at="cdn"),
    gateway("no vectors", "embedding_empty", at="no_vectors"),
    gateway("vectors without index", "embedding_no_index", at="no_index", status=0),
    gateway("vectors in base64", "embedding_not_numbers", at="base64"),
    gateway("a gateway that refuses drop_params", "drop_params_rejected", at="no_drop_params", status=0),
    gateway("a rerank of another shape", "rerank_unreadable", at="tei", more=("--rerank-model", "m-rerank")),
    url("nginx that buffers", "buffered_by_nginx", at="{nginx}/buffered/v1"),
    url("nginx that compresses", "stream_compressed", at="{nginx}/gzipped/v1", status=0),
    url("nginx in front of nothing", "front_server_gets_no_response", at="{nginx}/nobody/v1"),
]  # fmt: skip
FOLLOWS = {"skipped", "no_embedding_model"}
"""Findings that follow from a failure."""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    with serving_in_a_thread(tmp_path_factory.mktemp("places")) as found:
        yield found


@pytest.fixture(autouse=True)
def own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer questions for names that do not exist without asking a name server."""
    known = socket.getaddrinfo

    def look_up(host: Any, *args: Any, **options: Any) -> Any:
        if str(host).endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return known(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setenv("PROXY_DOCTOR_KEY", KEY)
    monkeypatch.setenv("LC_ALL", "C.UTF-8")


def filled(text: str, places: dict[str, object]) -> str:
    for name, place in places.items():
        text = text.replace(f"{{{name}}}", str(place))
    return text


def run(setup: Setup, places: dict[str, object], folder: Path, *more: str) -> int:
    """Run the doctor; return its exit status."""
    arguments = [filled(argument, places) for argument in setup.arguments]
    if setup.settings:
        path = folder / "my.toml"
        path.write_text(filled(setup.settings, places))
        arguments += ["--config", str(path)]
    return main(["doctor", *arguments, *more])


def found_in(printed: str) -> list[str]:
    """Return the ids of the findings, without those of passed checks."""
    return [finding["id"] for finding in json.loads(printed)["findings"] if finding["level"] != "ok"]


def test_enough_broken_setups_are_tested() -> None:
    assert len({setup.name for setup in SETUPS}) == len(SETUPS) >= 40


@pytest.mark.parametrize("setup", SETUPS, ids=lambda setup: setup.name)
def test_a_broken_setup_is_named(
    setup: Setup, places: dict[str, object], tmp_path: Path, capsys: Printed
) -> None:
    status = run(setup, places, tmp_path, "--json")
    printed = capsys.readouterr()
    found = found_in(printed.out)
    wanted = {next((name for name in each.split(" or ") if name in found), each) for each in setup.finds}
    assert {*found} - FOLLOWS == wanted - FOLLOWS, printed.out
    assert status == setup.status
    for finding in json.loads(printed.out)["findings"]:
        assert finding["level"] == "ok" or (finding["cause"] and finding["cure"]), finding
    for secret in (SECRET, KEY, TOKEN, REDIS_PASSWORD, "wrong-canary-1234"):
        assert secret not in printed.out + printed.err
    assert not CONTROLS & {*json.loads(json.dumps(printed.out))}
    assert "\\u001b" not in printed.out


@pytest.mark.parametrize(
    "setup",
    [
        config("a sound configuration", status=0),
        config("a peculiar gateway with repairs", gateway="peculiar", edit=REPAIRED, status=0),
        gateway("a sound gateway", at="sound", status=0, more=("--model", "m-chat", "--rerank-model", "r")),
        url("nginx that does not buffer", at="{nginx}/right/v1", status=0),
    ],
    ids=lambda setup: setup.name,
)
def test_a_correct_setup_passes_every_check(
    setup: Setup, places: dict[str, object], tmp_path: Path, capsys: Printed
) -> None:
    assert run(setup, places, tmp_path, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert {finding["level"] for finding in printed["findings"]} == {"ok"}, printed
    assert {"models_listed", "first_piece", "chat_works", "stream_works", "embedding_works"} <= {
        finding["id"] for finding in printed["findings"]
    }
    assert {finding["id"] for finding in printed["findings"]} <= {*CATALOGUE}
