"""The banner: the address of the service, and how to try it, without a private key."""

import io
import sys
from pathlib import Path

import pytest

from proxy.cli.arguments import typed_command
from proxy.cli.banner import print_banner
from proxy.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]
ADDRESS = "http://127.0.0.1:5002"
KEY = "sk-canary-of-a-caller"
OWN = f"""
[[access.keys]]
name = "ragflow"
key = "{KEY}"
[upstreams.chat]
base_url = "https://llm.corp.example/v1"
[chat]
model = "m"
"""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def own(tmp_path: Path) -> Settings:
    path = tmp_path / "my.toml"
    path.write_text(OWN)
    return load_settings(path, {})


def test_on_a_terminal_it_names_addresses_callers_and_the_doctor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    print_banner(own(tmp_path), ADDRESS)
    shown = stream.getvalue()
    for words in (
        "base URL   http://127.0.0.1:5002/v1",
        "keys       ragflow",
        "upstreams  chat (https://llm.corp.example/v1)",
        "chat       http://127.0.0.1:5002/chat/",
        f"{typed_command()} doctor --url http://127.0.0.1:5002/v1 --key -",
    ):
        assert words in shown
    assert KEY not in shown
    assert "status" not in shown


def test_a_service_prints_no_banner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_banner(own(tmp_path), ADDRESS)
    assert capsys.readouterr().out == ""


def test_the_demonstration_shows_its_public_key_and_the_next_steps(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_banner(load_settings(ROOT / "config/proxy.toml", {}), ADDRESS)
    shown = capsys.readouterr().out
    assert "Bearer sk-local" in shown
    assert f"{typed_command()} init" in shown
