"""Token ids: encodings are loaded at start-up, or start-up fails."""

import json
import threading
from pathlib import Path

import pytest
import tiktoken
from tiktoken import load as tiktoken_load
from tiktoken import registry

from proxy.cli import main
from proxy.errors import InvalidRequest, SettingsError
from proxy.settings import Settings, load_settings
from proxy.token_ids import NO_TEXTS, TokenTexts, encoding_of, load_token_texts
from tests.conftest import RunProxy, require
from tests.raw_caller import raw_caller
from tests.raw_upstream import Conversation, raw_upstream

ROOT = Path(__file__).parents[1]
SETTINGS = """
[access]
mode = "open"
[routes]
default = "e"
{more}
[upstreams.e]
base_url = "http://127.0.0.1:1/v1"
repairs = {repairs}
"""
DECODE = '["decode_token_ids"]'
BYTES = tiktoken.Encoding(
    "bytes",
    pat_str=r"(?s).",
    mergeable_ranks={bytes([n]): n for n in range(256)},
    special_tokens={"<|end|>": 256},
)
"""An encoding in which each byte is a token."""


def settings(tmp_path: Path, repairs: str = DECODE, more: str = "") -> Settings:
    path = tmp_path / "proxy.toml"
    path.write_text(SETTINGS.format(repairs=repairs, more=more))
    return load_settings(path, {})


@pytest.fixture
def nothing_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove all encodings from memory and disk, and block the network."""

    def refuse(_: str) -> bytes:
        raise OSError("no network here")

    monkeypatch.setattr(registry, "ENCODINGS", {})
    monkeypatch.setattr(tiktoken_load, "read_file", refuse)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "empty"))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the default encoding by the tiny one."""
    monkeypatch.setattr(registry, "ENCODINGS", {"cl100k_base": BYTES})


def test_ids_are_read_by_the_encoding_of_the_model() -> None:
    texts = TokenTexts({"cl100k_base": BYTES})
    for model in ("text-embedding-3-small", "bge-m3", None):
        assert texts.reader(model)([*"你好".encode(), 256]) == "你好<|end|>"
    with pytest.raises(InvalidRequest, match="o200k_base"):
        texts.reader("gpt-4o")([1])


@pytest.mark.parametrize("ids", [[257], [2**31], [2**70], [72, 999_999]])
def test_ids_outside_the_encoding_are_an_invalid_request(ids: list[int]) -> None:
    with pytest.raises(InvalidRequest, match="cl100k_base does not have") as refused:
        TokenTexts({"cl100k_base": BYTES}).reader("m")(ids)
    assert refused.value.param == "input"


def test_half_a_character_at_a_cut_is_marked_and_no_fault() -> None:
    assert TokenTexts({"cl100k_base": BYTES}).reader("m")([*"你好".encode()[:4]]) == "你\ufffd"


def test_no_encoding_is_loaded_unless_configured(nothing_read: None, tmp_path: Path) -> None:
    assert load_token_texts(settings(tmp_path, '["ragflow", "langchain"]')) is NO_TEXTS
    with pytest.raises(InvalidRequest):
        NO_TEXTS.reader("m")([1])


def test_a_missing_encoding_ends_the_start_and_names_the_remedy(nothing_read: None, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^upstreams\.e\.repairs: .*cl100k_base.*TIKTOKEN_CACHE_DIR"):
        load_token_texts(settings(tmp_path))


def test_the_command_reports_it_before_it_listens(
    nothing_read: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings(tmp_path)
    assert main(["serve", "--config", str(tmp_path / "proxy.toml"), "--bind", "127.0.0.1:0"]) == 2
    assert "cl100k_base" in capsys.readouterr().err


def test_a_silent_network_does_not_delay_the_start_indefinitely(
    nothing_read: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_of_test = threading.Event()
    monkeypatch.setattr("tiktoken.get_encoding", lambda _: end_of_test.wait())
    monkeypatch.setattr("proxy.token_ids.LOAD_SECONDS", 0.01)
    try:
        with pytest.raises(SettingsError, match="no response in time"):
            load_token_texts(settings(tmp_path))
    finally:
        end_of_test.set()


def test_a_missing_package_is_reported_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.settings.fields.find_spec", lambda _: None)
    with pytest.raises(
        SettingsError, match=r"proxy\.toml:\d+: upstreams\.e\.repairs.*pip install '\.\[tiktoken\]'"
    ):
        settings(tmp_path)


def test_encodings_of_configured_models_are_loaded_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "ENCODINGS", {"cl100k_base": BYTES, "o200k_base": BYTES})
    more = '[[routes.models]]\nmatch = "gpt-4o"\nupstream = "e"'
    assert {*load_token_texts(settings(tmp_path, more=more)).encodings} == {"cl100k_base", "o200k_base"}


async def test_an_upstream_that_reads_text_only_gets_text(tiny: None, run_proxy: RunProxy) -> None:
    async def script(talk: Conversation) -> None:
        await talk.answer(b'{"data": []}', "Content-Type: application/json")

    more = '[[routes.models]]\nmatch = "*"\nupstream = "chat"'
    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url, options=f"repairs = {DECODE}", more=more) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        body = {"model": "text-embedding-3-small", "input": [[*b"Hi"], [*"你好".encode()]]}
        for sent in (body, {**body, "input": [[999]]}):
            data = json.dumps(sent).encode()
            await caller.send("POST", "/v1/embeddings", "Content-Type: application/json", body=data)
            answer = await caller.answer()
            last = answer.status, await caller.body(answer)
    (request,) = upstream.requests
    assert json.loads(request.body) == {**body, "input": ["Hi", "你好"]}
    assert last[0] == 400
    assert json.loads(last[1])["error"]["param"] == "input"


def test_the_real_encoding_reads_what_it_wrote(
    nothing_read: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [*ROOT.glob(".clients/frameworks/lib/*/site-packages/llama_index/core/_static/tiktoken_cache")]
    require("an encoding of tiktoken (make clients)", found=bool(found))
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(found[0]))
    texts = load_token_texts(settings(tmp_path))
    written = "Two words, 两个词 🙂"
    ids = texts.encodings["cl100k_base"].encode(written)
    assert texts.reader("text-embedding-3-large")(ids) == written
    assert encoding_of("text-embedding-3-large") == "cl100k_base"
