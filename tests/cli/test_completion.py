"""Completion for shells: bash completes words, and the scripts of other shells name every option."""

import re
import shlex
import subprocess
import sys

import pytest

from proxy.cli import main
from proxy.cli.arguments import COMMANDS, SHELLS, options_of
from proxy.cli.completion import completion

Printed = pytest.CaptureFixture[str]


def completed(*words: str) -> list[str]:
    """Return the completions of bash for the last of these words."""
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
