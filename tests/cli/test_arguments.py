"""The command line: every command has help with examples that are valid."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from proxy.cli import main
from proxy.cli.arguments import COMMANDS, build_parser, options_of, typed_command

Printed = pytest.CaptureFixture[str]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_has_valid_examples(
    name: str, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["llm-token-proxy"])
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    _, _, examples = shown.partition("examples:\n")
    assert [line.strip() for line in examples.splitlines()] == [*COMMANDS[name].examples]
    for example in COMMANDS[name].examples:
        command = re.sub(r"^eval \"\$\((.*)\)\"$", r"\1", example)
        program, *arguments = shlex.split(re.split(" [<>] ", command)[0])
        assert program == "llm-token-proxy"
        assert build_parser().parse_args(arguments).command == name


def test_every_option_explains_itself() -> None:
    for name, command in COMMANDS.items():
        for action in options_of(command):
            assert action.help, f"{name} {action.dest}"


def test_the_help_lists_every_command_and_the_first_steps(capsys: Printed) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert all(re.search(rf"^ +{name} +\w", shown, re.MULTILINE) for name in COMMANDS)
    assert f"{typed_command()} init" in shown


def test_help_names_the_command_that_was_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / ".venv/bin/python"
    monkeypatch.setattr(sys, "executable", str(python))
    assert typed_command() == f"{python} -m proxy"
    monkeypatch.chdir(tmp_path)
    assert typed_command() == ".venv/bin/python -m proxy"
    assert "\n  .venv/bin/python -m proxy init\n" in build_parser().format_help()
    monkeypatch.setattr(sys, "argv", ["/usr/local/bin/llm-token-proxy", "--help"])
    assert typed_command() == "llm-token-proxy"
    assert "\n  llm-token-proxy init\n" in build_parser().format_help()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serve", "--workers", "two"], "must be 1 or more, or auto"),
        (["serve", "--workers", "1.5"], "must be 1 or more, or auto"),
        (["serve", "--workers", "inf"], "must be 1 or more, or auto"),
        (["doctor", "--timeout", "5s"], "must be seconds, 0 or more"),
        (["gateway", "--status", "ok"], "must be an HTTP status, 200 to 599"),
        (["gateway", "--cut-after", "three"], "must be a whole number, 0 or more"),
        (["gateway", "--stall-after", "-1"], "must be a whole number, 0 or more"),
    ],
)
def test_a_value_that_is_no_number_is_rejected_in_words(
    arguments: list[str], words: str, capsys: Printed
) -> None:
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.rstrip().endswith(f": {words}")
