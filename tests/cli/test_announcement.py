"""What the log and the banner say when `serve` begins."""

import contextlib
import socket
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from proxy.cli import announcement
from proxy.cli.announcement import announce
from proxy.secret import MASK
from proxy.settings import load_settings

OPERATORS_KEY = "sk-canary-of-the-operator"


@pytest.fixture(autouse=True)
def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every number of connections fit, whatever this machine allows."""
    monkeypatch.setattr(announcement, "fit_connections", lambda wanted: wanted)


def announced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], access: str, more: str = "", path_key: str = "x"
) -> tuple[list[EventDict], str]:
    """Return the log lines and the output of a start with these settings."""
    path = tmp_path / "proxy.toml"
    path.write_text(f'{access}\n[upstreams.a]\nbase_url = "http://127.0.0.1:9/{path_key}/v1"\n{more}')
    settings = load_settings(path, {})
    with capture_logs() as lines, contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        announce(settings, [listener])
    return lines, capsys.readouterr().out


def keys(*texts: str) -> str:
    """Return an `[access]` section with these keys."""
    return "".join(f'[[access.keys]]\nname = "c{n}"\nkey = "{text}"\n' for n, text in enumerate(texts))


def test_the_banner_shows_a_public_key_and_never_the_operators(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, banner = announced(tmp_path, capsys, keys(OPERATORS_KEY, "sk-local"), "[gateway]\n")
    assert "Bearer sk-local" in banner
    _, without = announced(tmp_path, capsys, keys(OPERATORS_KEY), "[gateway]\n")
    assert "one of yours in [[access.keys]]" in without
    assert OPERATORS_KEY not in banner + without
    _, opened = announced(tmp_path, capsys, '[access]\nmode = "open"\n', "[gateway]\n")
    assert "none is required: any will do" in opened


def test_a_key_in_the_path_of_an_upstream_is_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = "9f8Ab37cQ1zX0pLm4Tt7"
    lines, banner = announced(tmp_path, capsys, keys(OPERATORS_KEY), "[gateway]\n", path_key=key)
    assert lines[0]["upstreams"] == {"a": f"http://127.0.0.1:9/{MASK}/v1"}
    assert key not in repr(lines) + banner


def test_weak_keys_and_default_keys_cause_warnings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, _ = announced(tmp_path, capsys, keys("fake key", "abc"))
    (weak,) = [line for line in lines if line["event"] == "weak_key"]
    assert (weak["caller"], weak["log_level"]) == ("c1", "warning")
    (default,) = [line for line in lines if line["event"] == "default_keys"]
    assert default["log_level"] == "warning"
    assert "behind nginx and from other machines they are answered 401" in default["meaning"]
    assert 'mode = "open"' in default["cure"]
    assert "abc" not in repr(lines)


def test_the_log_says_that_the_originals_key_is_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, _ = announced(tmp_path, capsys, keys(OPERATORS_KEY))
    assert [line["event"] for line in lines] == ["serving", "original_key_rejected"]
    assert "`fake key`, are answered 401" in lines[1]["meaning"]
    assert OPERATORS_KEY not in repr(lines)
    lines, _ = announced(tmp_path, capsys, '[access]\nmode = "open"\n')
    assert "original_key_rejected" not in [line["event"] for line in lines]


def test_a_limit_of_open_files_that_is_too_low_causes_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcement, "fit_connections", lambda _wanted: 352)
    lines, _ = announced(tmp_path, capsys, keys(OPERATORS_KEY), "[limits]\nmax_connections = 2000\n")
    (line,) = [line for line in lines if line["event"] == "connections_limited"]
    assert (line["max_connections"], line["in_effect"], line["log_level"]) == (2000, 352, "warning")
    assert "raise the hard limit of open files to 4320" in line["cure"]
