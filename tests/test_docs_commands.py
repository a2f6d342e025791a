"""The commands in the documents: every `sh` block runs beside the service that `make run` serves.

bash runs each block with a PATH that has only what `RUN` and `RECORDED` name. Our own commands are recorded
with their environment and standard input, and then run in this process, which saves the start of an
interpreter for each. Commands that need a machine are only recorded, and `RECORDED` says why.
"""

import asyncio
import io
import json
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from proxy import __version__
from proxy.app import create_app
from proxy.cli import main
from proxy.cli.arguments import COMMANDS, SCRIPT, build_parser
from proxy.cli.gateway import embedded_gateway
from proxy.gateway import GatewayOptions, create_gateway
from proxy.settings import load_settings
from tests.conftest import RunningGateway
from tests.documents import CODE, DOCUMENTS, FENCE, ROOT, fences
from tests.loopback import serve_on_loopback, until
from tests.pace import PATIENCE

RUN: Final = ("curl", "openssl", "cat")
RECORDED: Final = {
    "docker": "needs a container engine; tests/config/test_container.py runs what it would",
    "kubectl": "needs a cluster",
    "systemctl": "needs systemd as the init process, and root",
    "journalctl": "follows the journal of a service that systemd runs",
    "make": "its targets have tests of their own, and most take minutes",
    "pip": "needs a package index",
}
"""Programs that are only recorded here, with the reason."""
SERVES: Final = {"serve", "gateway"}
"""Commands that run until they are stopped; only their options are parsed here, and tests/cli starts them."""

NOT_IN_BLOCKS: Final = {"health", "completion"}
"""Commands that no block shows; `docs/operations.md` has a row for each."""

LOCAL: Final = "http://127.0.0.1:5002"
PUBLIC: Final = "https://llm.corp.example"
STATUS_KEY: Final = "status-key-4f70-b1c2"
ENVIRONMENT: Final = {
    "LC_ALL": "C.UTF-8",
    "RAGFLOW_KEY": "sk-local",
    "CORP_APP_SECRET": "demo-secret",
    "STATUS_PAGE_KEY": STATUS_KEY,
}
"""Variables that a reader has set at that point."""
CURL_LINE: Final = """curl {url}/token -H 'Content-Type: application/json' \
-d '{{"appId": "demo", "appSecret": "demo-secret"}}'"""
MY_TOML: Final = """\
[[access.keys]]
name = "ragflow"
key = "${{env:RAGFLOW_KEY}}"

[upstreams.chat]
base_url = "{url}/v1"
credential = "corp"

[credentials.corp]
source = "http"
url = "{url}/token"
json = {{ appId = "demo", appSecret = "${{env:CORP_APP_SECRET}}" }}
success = {{ path = "code", equals = 0 }}
token = "data.token"
expires = [{{ path = "data.expireTime", as = "epoch_ms" }}]
"""
RECORDER: Final = """\
#!{python} -IS
import json, os, sys
program = os.path.basename(sys.argv[0])
given = sys.stdin.read() if program == "python" else ""
with open({calls!r}, "a") as calls:
    print(json.dumps([program, sys.argv[1:], dict(os.environ), given]), file=calls)
"""
CURL: Final = "#!/bin/sh\nexec {curl} -sS --max-time {patience} -w '\\n<%{{http_code}}>\\n' \"$@\"\n"
STATUS: Final = re.compile(r"^<(\d{3})>$", re.MULTILINE)
OF_OURS: Final = re.compile(rf"(?:\.venv/bin/python -m proxy|{SCRIPT}) ([a-z].*)")
"""A command in a sentence."""


class Call(NamedTuple):
    """A program that a block starts."""

    program: str
    arguments: list[str]
    environ: dict[str, str]
    given: str
    """Standard input."""


class Reader:
    """Runs blocks in a folder, as a reader does at the root of a checkout."""

    def __init__(self, folder: Path, service: str) -> None:
        self._folder = folder
        self._service = service
        self._calls = folder / "calls"
        self._programs = folder / "bin"
        python = folder / ".venv/bin"
        python.mkdir(parents=True)
        self._programs.mkdir()
        for program in (python / "python", python / "pip", *(self._programs / name for name in RECORDED)):
            write_program(program, RECORDER.format(python=sys.executable, calls=str(self._calls)))
        for name in RUN:
            (self._programs / name).symlink_to(str(shutil.which(name)))
        (self._programs / "curl").unlink()
        write_program(self._programs / "curl", CURL.format(curl=shutil.which("curl"), patience=PATIENCE))

    async def run(self, block: str) -> tuple[str, list[Call]]:
        """Return what it printed, and the calls that were recorded."""
        self._calls.write_text("")
        script = block.replace(LOCAL, self._service).replace(PUBLIC, self._service)
        bash = await asyncio.create_subprocess_exec(
            str(shutil.which("bash")),
            "-euc",
            script,
            cwd=self._folder,
            env={**ENVIRONMENT, "PATH": str(self._programs), "HOME": str(self._folder)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(PATIENCE):
            printed, _ = await bash.communicate()
        assert bash.returncode == 0, f"{block}\n{printed.decode()}"
        return printed.decode(), [Call(*json.loads(line)) for line in self._calls.read_text().splitlines()]


def write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def blocks() -> Iterator[tuple[str, str]]:
    """Yield document and text of each block, without comments; equal blocks of both languages only once."""
    seen: set[str] = set()
    for name, text in DOCUMENTS.items():
        for block in fences(text, "sh"):
            bare = re.sub(r" +# .*$", "", block, flags=re.MULTILINE)
            if bare not in seen:
                yield name, bare
            seen.add(bare)


@pytest.fixture
async def gateway() -> AsyncIterator[RunningGateway]:
    """A demonstration gateway without pauses."""
    app = create_gateway(GatewayOptions(word_delay=0.0))
    async with serve_on_loopback(app) as url:
        yield RunningGateway(url, app.extensions["gateway"])


@pytest.fixture
async def reader(tmp_path: Path, gateway: RunningGateway) -> AsyncIterator[Reader]:
    """A checkout with the files of the guides, next to the demonstration service."""
    (tmp_path / "my.toml").write_text(MY_TOML.format(url=gateway.url))
    (tmp_path / "key.txt").write_text("sk-local\n")
    changes = {"PROXY__GATEWAY__WORD_DELAY": "0", "PROXY__STATUS__KEY": STATUS_KEY}
    settings = load_settings(ROOT / "config/proxy.toml", changes)
    async with embedded_gateway(settings) as resolve:
        app = create_app(resolve(settings))
        async with serve_on_loopback(app) as url:
            await until(app.serving.is_set)
            yield Reader(tmp_path, url)


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_every_block_runs(
    reader: Reader, gateway: RunningGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # On a busy machine, a sound stream arrives in blocks: keep `doctor` from judging when events arrive.
    monkeypatch.setattr("proxy.cli.doctor.arrivals.NOTICEABLE_SECONDS", PATIENCE)
    done: list[tuple[str, list[str]]] = []
    for name, block in blocks():
        printed, calls = await reader.run(block)
        expected = "401" if "sk-wrong" in block else "200"
        assert {*STATUS.findall(printed)} <= {expected}, f"{name}\n{printed}"
        assert "stream" not in block or "data: [DONE]" in printed, f"{name}\n{printed}"
        for call in calls:
            if (call.program, call.arguments) not in done:
                done.append((call.program, call.arguments))
                with monkeypatch.context() as patch:
                    for variable, value in {**call.environ, **ENVIRONMENT}.items():
                        patch.setenv(variable, value)
                    patch.setattr(sys, "stdin", io.StringIO(call.given or CURL_LINE.format(url=gateway.url)))
                    await CHECKS[call.program](call.arguments)
    ours = {arguments[2] for _, arguments in done if arguments[:2] == ["-m", "proxy"]}
    assert ours == {*COMMANDS} - NOT_IN_BLOCKS


async def run_ours(arguments: list[str]) -> None:
    """Run one of our commands; or install the project with an extra, by its name."""
    module = arguments[:2]
    if module == ["-m", "pip"]:
        check_extra(arguments[2:])
        return
    assert module == ["-m", "proxy"]
    if arguments[2] in SERVES:
        build_parser().parse_args(arguments[2:])
        return
    assert await asyncio.to_thread(main, arguments[2:]) == 0, arguments


def check_extra(arguments: list[str]) -> None:
    """Check that `pip install '.[extra]'` names an extra."""
    install, what = arguments
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert install == "install"
    assert what.removeprefix(".[").removesuffix("]") in extras


async def check_make(arguments: list[str]) -> None:
    """Check that the targets exist."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {word for word in arguments if "=" not in word} <= {*targets}


async def check_unit(arguments: list[str]) -> None:
    """Check that the units exist."""
    units = {path.name for path in (ROOT / "config/systemd").iterdir()}
    named = [word for word in arguments if word.startswith(SCRIPT)]
    assert {word if "." in word else f"{word}.service" for word in named} <= units


async def check_docker(arguments: list[str]) -> None:
    """Check the files, the image's tag, and the command that the image runs."""
    for word in arguments:
        if word.startswith("config/"):
            assert (ROOT / word).is_file(), word
    image = f"{SCRIPT}:{__version__}"
    if arguments[0] != "compose":
        assert image in arguments
    if arguments[0] == "run" and (command := arguments[arguments.index(image) + 1 :]):
        build_parser().parse_args(command)


async def check_nothing(arguments: list[str]) -> None:
    """Check that there are arguments; other tests check what they name."""
    assert arguments


CHECKS: Final = {
    "python": run_ours,
    "pip": check_nothing,  # tests/test_docs_configuration.py compares the packages with pyproject.toml
    "make": check_make,
    "docker": check_docker,
    "kubectl": check_nothing,  # tests/test_docs_blocks.py loads the overlay
    "systemctl": check_unit,
    "journalctl": check_unit,
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_command_in_a_sentence_has_the_options_that_it_names(name: str) -> None:
    for span in CODE.findall(FENCE.sub("", DOCUMENTS[name])):
        if found := OF_OURS.fullmatch(span):
            build_parser().parse_args(shlex.split(found[1]))
