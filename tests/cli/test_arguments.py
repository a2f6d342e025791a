"""The command line: every command has help with examples that are valid, and completion for shells."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.cli import main
from proxy.cli.arguments import COMMANDS, SHELLS, build_parser, options_of, typed_command
from proxy.cli.completion import completion

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


def completed(*words: str) -> list[str]:
    """What bash offers for the last of these words."""
    script = completion("bash") + (
        f"COMP_WORDS=({' '.join(map(shlex.quote, words))}); COMP_CWORD={len(words) - 1}\n"
        '_llm_token_proxy; printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    shell = ["bash", "--norc", "-c", script]
    printed = subprocess.run(shell, check=True, capture_output=True, text=True)
    assert printed.stderr == ""
    return printed.stdout.split()


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["d"], {"doctor"}),
        ([""], {*COMMANDS}),
        (["doctor", "--emb"], {"--embedding-model"}),
        (["doctor", "--key", "x", "--u"], {"--url"}),
        (["serve", "--server", "g"], {"granian"}),
        (["completion", ""], {*SHELLS}),
        (["check", "--config", "tests/cli/test_arg"], {"tests/cli/test_arguments.py"}),
        (["serve", "--workers", ""], set()),
    ],
)
def test_bash_completes_commands_options_and_values(typed: list[str], offered: set[str]) -> None:
    assert {*completed("llm-token-proxy", *typed)} == offered


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_knows_every_option(shell: str, capsys: Printed) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "$script" not in script
    for name, command in COMMANDS.items():
        assert re.search(rf"\b{name}\b", script)
        for action in options_of(command):
            for flag in action.option_strings:
                assert (f"-l {flag[2:]}" if shell == "fish" else flag) in script
    assert "--assignment" not in script


def test_completion_and_help_load_little() -> None:
    """A shell runs them at each start."""
    code = "import sys; from proxy.cli import main; main(['completion', 'bash']); print(len(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "pydantic" not in printed
    assert int(printed.splitlines()[-1]) < 250
