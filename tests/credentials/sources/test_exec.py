"""Tokens that a command prints: with real processes, none of which is left behind."""

import asyncio
import json
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from structlog.typing import EventDict

from proxy.credentials.build import build_source
from proxy.credentials.sources import TokenFetchError
from proxy.credentials.sources.exec import ExecTokenSource
from proxy.credentials.token import FetchedToken
from proxy.secret import Secret
from proxy.settings import ExecCredential
from tests.credentials.fakes import local_machine, replaced
from tests.credentials.sources.sections import command

SHELL = "/bin/sh"


async def fetch(section: ExecCredential) -> FetchedToken:
    source = ExecTokenSource(section)
    try:
        return await source.fetch()
    finally:
        await source.close()


async def failure_of(section: ExecCredential) -> TokenFetchError:
    with pytest.raises(TokenFetchError) as failure:
        await fetch(section)
    assert not failure.value.permanent
    assert "s3cret" not in "".join(traceback.format_exception(failure.value)) + repr(failure.value)
    return failure.value


def script(text: str, **more: Any) -> ExecCredential:
    return command(SHELL, "-c", text, **more)


async def test_the_output_of_a_command_is_the_token() -> None:
    fetched = await fetch(script("echo s3cret"))

    assert fetched == FetchedToken(Secret("s3cret"), 300.0)


async def test_a_kubernetes_plugin_in_its_own_form(tmp_path: Path) -> None:
    plugin = tmp_path / "plugin"
    plugin.write_text(
        f"#!{sys.executable}\n"
        "import json, datetime as d\n"
        "end = d.datetime.now(d.timezone.utc) + d.timedelta(seconds=900)\n"
        'print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",\n'
        '  "status": {"token": "s3cret", "expirationTimestamp": end.isoformat()}}))\n'
    )
    plugin.chmod(0o700)

    fetched = await fetch(command(str(plugin)))
    assert fetched.secret == Secret("s3cret")
    assert 890.0 < fetched.lifetime <= 900.0


async def test_the_shared_token_is_refreshed_by_running_the_command_again(tmp_path: Path) -> None:
    machine = local_machine(ExecTokenSource(script("echo x >> runs; wc -l < runs", cwd=tmp_path)))
    first = await machine.get()
    assert (await machine.get()).secret == first.secret == Secret("1")
    assert (await replaced(machine)).secret == Secret("2")
    await machine.close()


async def test_a_command_sees_exactly_the_variables_that_it_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OF_THE_SERVICE", "x")
    environment: Mapping[str, str | Secret] = {"A": "b c", "KEY": Secret("s3cret"), "EMPTY": ""}
    listing = (
        "import json, os; print(json.dumps({'t': ','.join(f'{k}={v}' for k, v in sorted(os.environ.items())"
        " if k != 'LC_CTYPE')}))"  # the interpreter sets that one itself
    )
    python = (sys.executable, "-I", "-c")

    fetched = await fetch(command(*python, listing, env=environment, token="t"))
    assert fetched.secret == Secret("A=b c,EMPTY=,KEY=s3cret")
    empty = "import json, os; print(json.dumps({'t': str(len(os.environ.keys() - {'LC_CTYPE'}))}))"
    fetched = await fetch(command(*python, empty, token="t"))
    assert fetched.secret == Secret("0")


async def test_arguments_are_passed_without_a_shell_and_may_contain_secrets() -> None:
    arguments = ("%s|", "$HOME `id` $(id) ; * 'a b'", Secret("s3cret"))

    fetched = await fetch(command("/usr/bin/printf", *arguments))
    assert fetched.secret == Secret("$HOME `id` $(id) ; * 'a b'|s3cret|")
    assert "s3cret" not in repr(command(*arguments, env={"A": Secret("s3cret")}))


def test_a_command_starts_in_its_folder_with_nothing_to_read(tmp_path: Path) -> None:
    fetched = asyncio.run(fetch(script("cat; pwd -P", cwd=tmp_path)))

    assert fetched.secret == Secret(str(tmp_path.resolve()))


async def test_a_nonzero_status_is_a_temporary_failure_that_quotes_no_output(
    lines: list[EventDict],
) -> None:
    error = await failure_of(script("echo s3cret; echo s3cret >&2; exit 3"))

    assert error.reason.startswith("the command ended with status 3; run it by hand")
    (line,) = lines
    assert (line["event"], line["status"], line["stderr_bytes"]) == ("token_command_failed", 3, 7)
    assert "s3cret" not in json.dumps(lines)
    assert (await failure_of(script("kill -9 $$"))).reason.startswith("the command was killed by signal 9; ")


async def test_the_standard_error_of_a_successful_command_is_not_logged(lines: list[EventDict]) -> None:
    assert (await fetch(script("echo s3cret >&2; echo token"))).secret == Secret("token")
    assert lines == []


async def test_a_missing_or_unusable_program_is_a_temporary_failure(tmp_path: Path) -> None:
    program = tmp_path / "s3cret"
    gone = command(str(program))
    assert (await failure_of(gone)).reason == ("the command could not be started: No such file or directory")
    program.write_text("no program")
    assert (await failure_of(gone)).reason == "the command could not be started: Permission denied"
    program.chmod(0o700)
    assert (await failure_of(gone)).reason == "the command could not be started: Exec format error"
    assert (await failure_of(script("echo x", cwd=tmp_path / "missing"))).reason == (
        "the command could not be started: No such file or directory"
    )


async def test_an_output_without_a_token_is_a_temporary_failure() -> None:
    assert (await failure_of(script(":"))).reason == "the command's output is empty"
    assert (await failure_of(script("echo s3cret", format="git"))).reason == (
        "the command's output has a line that is not key=value"
    )


async def test_an_unreadable_expiry_is_logged(lines: list[EventDict]) -> None:
    reply = "password=s3cret\\npassword_expiry_utc=soon\\n"
    assert (await fetch(script(f"printf '{reply}'"))).lifetime == 300.0
    assert [line["event"] for line in lines] == ["token_lifetime_unreadable"]


def test_a_section_of_the_settings_is_run_unchanged(tmp_path: Path) -> None:
    section = ExecCredential.model_validate(
        {
            "source": "exec",
            "command": [SHELL, "-c", 'echo "{\\"a\\": {\\"b\\": \\"$HOME $A $OTHER $(pwd -P)\\"}}"'],
            "env": {"A": "b"},
            "inherit": ["HOME"],
            "cwd": str(tmp_path),
            "format": "json",
            "token": "a.b",
            "default_ttl": 9,
        },
        context={"environ": {"HOME": "/home", "OTHER": "x"}},
    )
    source = build_source(section)
    assert isinstance(source, ExecTokenSource)
    expected = Secret(f"/home b  {tmp_path.resolve()}")
    assert asyncio.run(source.fetch()) == FetchedToken(expected, 9.0)
