"""`source = "exec"`: the command, its environment, and its limits."""

from pathlib import Path

import pytest

from proxy.secret import Secret
from proxy.settings import ExecCredential, describe
from tests.settings.conftest import MINIMAL, Load, Problems

FIRST_LINE = MINIMAL.count("\n") + 2
EXEC = 'source = "exec"\ncommand = ["./helper"]\n'


@pytest.fixture(autouse=True)
def helper(tmp_path: Path) -> Path:
    """Create a program beside the settings file, and a file that is not executable."""
    return program(tmp_path / "helper")


def program(path: Path, mode: int = 0o700) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return path


def command(load: Load, text: str, **environ: str) -> ExecCredential:
    loaded = load(f'{MINIMAL}[credentials.corp]\nsource = "exec"\n{text}', environ).credentials["corp"]
    assert isinstance(loaded, ExecCredential)
    return loaded


def test_a_command_with_every_default(load: Load, tmp_path: Path) -> None:
    loaded = command(load, 'command = ["./helper"]')

    assert loaded.command == (f"{tmp_path}/helper",)
    assert loaded.inherit == ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TMPDIR", "TZ")
    assert (loaded.env, loaded.environment, loaded.cwd) == ({}, {}, tmp_path)
    assert (loaded.format, loaded.token, loaded.expires, loaded.timeout) == ("auto", None, (), 10)


def test_a_command_with_everything(load: Load, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    loaded = command(
        load,
        """\
command = ["./helper", "--key", "${env:KEY}", "a b; $HOME *"]
env = { MODE = "prod", KEY = "${env:KEY}", HOME = "/own", EMPTY = "${env:EMPTY}" }
inherit = ["HOME", "LANG", "NOT_SET"]
cwd = "run"
format = "json"
token = "data.token"
expires = [{ path = "data.at", as = "epoch" }]
timeout = 3
""",
        KEY="s3cr3t",
        HOME="/home/service",
        LANG="C",
        OTHER="x",
        EMPTY="",
    )

    assert loaded.command == (f"{tmp_path}/helper", "--key", Secret("s3cr3t"), "a b; $HOME *")
    assert loaded.environment == {
        "HOME": "/own",
        "LANG": "C",
        "MODE": "prod",
        "KEY": Secret("s3cr3t"),
        "EMPTY": Secret(""),
    }
    assert loaded.cwd == tmp_path / "run"
    assert (loaded.format, loaded.token, loaded.timeout) == ("json", "data.token", 3)
    assert [(expiry.path, expiry.unit) for expiry in loaded.expires] == [("data.at", "epoch")]


def test_inherited_values_are_loaded_and_never_shown(load: Load) -> None:
    text = f'{MINIMAL}[credentials.corp]\n{EXEC}inherit = ["KEY"]\nenv = {{ OWN = "${{env:KEY}}" }}'
    settings = load(text, {"KEY": "s3cr3t"})
    loaded = settings.credentials["corp"]

    assert isinstance(loaded, ExecCredential)
    assert loaded.environment == {"KEY": "s3cr3t", "OWN": Secret("s3cr3t")}
    assert loaded.model_copy().environment == loaded.environment
    assert "s3cr3t" not in repr(settings) + describe(settings)
    assert 'inherit = ["KEY"]' in describe(settings)


def test_a_bare_name_is_looked_up_on_the_services_path(load: Load, tmp_path: Path) -> None:
    found = program(tmp_path / "bin" / "corp-login")

    for path in (f"/nowhere:{tmp_path}/bin", "bin"):
        loaded = command(load, 'command = ["corp-login", "x"]', PATH=path)
        assert loaded.command == (str(found), "x")


def test_a_program_in_a_folder_starts_from_the_settings_file_and_not_from_cwd(
    load: Load, tmp_path: Path
) -> None:
    found = program(tmp_path / "bin" / "corp-login")
    (tmp_path / "run").mkdir()

    loaded = command(load, 'command = ["bin/corp-login"]\ncwd = "run"')
    assert loaded.command == (str(found),)
    assert command(load, f'command = ["{found}"]').command == (str(found),)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('source = "exec"', "-1 command: is required"),
        ('source = "exec"\ncommand = "helper --x"', "1 command: must be an array"),
        ('source = "exec"\ncommand = []', "1 command: must name a program"),
        ('source = "exec"\ncommand = [""]', "1 command.0: must name a program"),
        ('source = "exec"\ncommand = ["./helper", 1]', "1 command.1: must be a string"),
        (
            'source = "exec"\ncommand = ["./helper", "a\\u0000b"]',
            "1 command.1: must not contain a NUL character",
        ),
        (
            'source = "exec"\ncommand = ["./missing"]',
            "1 command.0: is not a program that can be run: it does not exist or is not executable",
        ),
        ('source = "exec"\ncommand = ["./x.toml"]', "1 command.0: is not a program that can be run"),
        ('source = "exec"\ncommand = ["/"]', "1 command.0: is not a program that can be run"),
        (
            'source = "exec"\ncommand = ["no-such-program"]',
            "1 command.0: was not found on PATH: give its path, or install it",
        ),
        (EXEC + 'cwd = "missing"', "2 cwd: is not a folder"),
        (EXEC + 'cwd = "helper"', "2 cwd: is not a folder"),
        (EXEC + 'env = { "A=B" = "c" }', '2 env."A=B": must be the name of an environment variable'),
        (EXEC + "env = { A = 1 }", "2 env.A: must be a string"),
        (EXEC + 'env = { A = "\\u0000" }', "2 env.A: must not contain a NUL character"),
        (EXEC + 'inherit = [""]', "2 inherit.0: must be the name of an environment variable"),
        (EXEC + 'inherit = "PATH"', "2 inherit: must be an array"),
        (
            EXEC + 'format = "yaml"',
            '2 format: must be "auto", "exec_credential", "credential_process", "git", "json" or "text"',
        ),
        (
            EXEC + 'format = "json"',
            '-1 token: is required for format = "json": '
            'the path of the token in the JSON, such as "data.token"',
        ),
        (
            EXEC + 'format = "git"\ntoken = "a"',
            '3 token: is only used with format = "auto" or format = "json"',
        ),
        (
            EXEC + 'format = "text"\nexpires = [{ path = "a", as = "jwt" }]',
            '3 expires: is only used with format = "auto" or format = "json"',
        ),
        (
            EXEC + 'expires = [{ path = "a", as = "jwt" }]',
            "2 expires: requires token as well: both are paths in JSON",
        ),
        (
            EXEC + 'env = { A = "${now}" }',
            "2 env.A: ${now} is resolved only when a token is requested",
        ),
        (EXEC + "shell = true", "2 shell: unknown key, "),
    ],
)
def test_an_invalid_value_is_reported(problems: Problems, text: str, told: str) -> None:
    line, words = told.split(" ", 1)

    assert problems(f"{MINIMAL}[credentials.corp]\n{text}", {"PATH": "/nowhere"})[0].startswith(
        f"x.toml:{FIRST_LINE + int(line)}: credentials.corp.{words}"
    )


def test_the_message_never_contains_the_value(problems: Problems) -> None:
    told = problems(
        MINIMAL + '[credentials.corp]\nsource = "exec"\ncommand = ["${env:KEY}"]\nenv = { A = "${env:NUL}" }',
        {"KEY": "s3cr3t", "NUL": "s3cr3t\0"},
    )

    assert len(told) == 2
    assert "s3cr3t" not in " ".join(told)
