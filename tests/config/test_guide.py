"""docs/token-endpoint*.md: their sessions are real, and they name every example."""

import asyncio
import io
import re
import sys
import tomllib
from pathlib import Path
from typing import Final

import pytest

from proxy.cli import main
from proxy.credentials import MemoryTokenStore
from proxy.credentials.build import build_credentials
from proxy.telemetry import Metrics
from tests.config.examples import NAMES, Surroundings
from tests.conftest import RunningGateway
from tests.documents import DOCUMENTS, FENCE, LINK, fences, rows

GUIDES: Final = ("docs/token-endpoint.md", "docs/token-endpoint.zh-CN.md")
ORIGIN: Final = "http://127.0.0.1:5003"
PROMPT: Final = "Paste the curl line that gets a token:\n"
CHANGING: Final = re.compile(r"(\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d|(?<=fingerprint  )[0-9a-f]{8}|\d{13}")
NEARLY_FIVE: Final = re.compile(r"4\.9\d min|5\.0[12] min")
"""The lifetime on a slow host, or if a second ended between the reply's Date and its token."""
SEALING_KEY: Final = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
Printed = pytest.CaptureFixture[str]

each_guide = pytest.mark.parametrize("name", GUIDES)


class Terminal(io.StringIO):
    """Standard input that is a terminal."""

    def isatty(self) -> bool:
        return True


def recipe_session(name: str) -> tuple[str, str, str]:
    """Return the pasted text, the resulting block, and the remarks beside it."""
    session, _ = fences(DOCUMENTS[name], "console")
    command, typed_and_block = session.split(PROMPT)
    assert command == "$ .venv/bin/python -m proxy recipe\n"
    typed, block = typed_and_block.split("# Generated", 1)
    block, beside = block.split("\n\n")
    return typed, f"# Generated{block}\n", beside


def token_session(name: str) -> str:
    return fences(DOCUMENTS[name], "console")[1]


def my_toml(name: str) -> str:
    """Return the file that the guide has built before it runs `check`."""
    return fences(DOCUMENTS[name], "toml")[0] + recipe_session(name)[1]


@each_guide
async def test_the_recipe_session_is_a_real_one(
    name: str, gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    typed, block, beside = recipe_session(name)
    monkeypatch.setattr(sys, "stdin", Terminal(typed.replace(ORIGIN, gateway.url)))

    assert await asyncio.to_thread(main, ["recipe"]) == 0
    printed = capsys.readouterr()
    assert NEARLY_FIVE.sub("5 min", printed.out) == block.replace(ORIGIN, gateway.url)
    assert NEARLY_FIVE.sub("5 min", printed.err) == f"{PROMPT}\n{beside}"


@each_guide
async def test_the_token_session_is_a_real_one(
    name: str, gateway: RunningGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    for variable, value in exported(name).items():
        monkeypatch.setenv(variable, value)
    config = tmp_path / "my.toml"
    config.write_text(my_toml(name).replace(ORIGIN, gateway.url))

    assert await asyncio.to_thread(main, ["check", "--config", str(config)]) == 0
    capsys.readouterr()
    assert await asyncio.to_thread(main, ["token", "corp", "--config", str(config)]) == 0
    assert CHANGING.sub("~", capsys.readouterr().out) == CHANGING.sub("~", token_session(name))


def exported(name: str) -> dict[str, str]:
    """Return the variables that the guide sets."""
    (line,) = re.findall(r"^export (.*)$", "".join(fences(DOCUMENTS[name], "sh")), re.MULTILINE)
    return dict(pair.split("=") for pair in line.split())


@each_guide
def test_every_toml_block_loads(name: str, around: Surroundings) -> None:
    around.environ = {"PROXY_ENCRYPTION_KEY": SEALING_KEY}
    blocks = [my_toml(name), *fences(DOCUMENTS[name], "toml")[1:]]

    assert len(blocks) > 3
    for block in blocks:
        assert "corp" in around.load(block).credentials


def test_both_languages_show_the_same() -> None:
    first, second = (
        [tomllib.loads(block) if of == "toml" else block for of, block in FENCE.findall(text)]
        for text in (DOCUMENTS[name] for name in GUIDES)
    )

    assert first == second


@each_guide
def test_every_example_is_named_and_every_name_is_an_example(name: str) -> None:
    table = [LINK.findall(row[0]) for row in rows(DOCUMENTS[name]) if "../config/credentials/" in row[0]]
    linked = [target for targets in table for target in targets]

    assert sorted(linked) == [f"../config/credentials/{example}" for example in NAMES]


@each_guide
def test_every_unit_has_a_row(name: str) -> None:
    units = [row[1].strip("`") for row in rows(DOCUMENTS[name]) if len(row) == 3]

    assert units == ["seconds", "milliseconds", "epoch", "epoch_ms", "iso8601", "jwt", "–"]


@each_guide
async def test_the_metrics_are_there(name: str, around: Surroundings) -> None:
    store = MemoryTokenStore()
    credentials = build_credentials(around.example("static.toml").credentials, store)
    text = Metrics(credentials.readings).render()[0].decode()
    await credentials.close()
    await store.close()
    named = {*re.findall(r"`(llm_proxy_\w+[a-z])`", DOCUMENTS[name])}

    assert len(named) > 5
    assert {metric for metric in named if f"\n# TYPE {metric} " not in f"\n{text}"} == set()
