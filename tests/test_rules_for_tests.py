"""The rules for tests in CONTRIBUTING.md, one test each."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).parent
PACKAGE: Final = TESTS.parent / "proxy"

WITHOUT_TESTS_OF_THEIR_OWN: Final = {
    "__main__.py": "calls proxy.cli.main",
    "api_docs/own_routes.py": "a table, which tests/api_docs/test_openapi.py compares with the routes",
    "cloud_sdks/__main__.py": "a process, which tests/credentials/sources/test_cloud.py runs",
    "cloud_sdks/fetch.py": "chooses the SDK, whose tests call it",
    "credentials/sharing/scripts.py": "Lua scripts, which the tests of fleet.py run in Redis",
    "telemetry/spans.py": "protocols, which mypy compares with telemetry/traces.py",
    "wire/disconnect.py": "the names and types of an ASGI extension",
    "wire/statuses.py": "numbers of the standard library under names of their own",
}
"""Modules without a test file, by their paths, each with the reason."""


def defines_something(path: Path) -> bool:
    """Whether a module defines a function or a class, or is more than the `__init__.py` of a package."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return path.name != "__init__.py" or any(
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) for node in tree.body
    )


def has_tests(module: Path) -> bool:
    """Whether `test_NAME.py` or `test_NAME_*.py` is in the folder that mirrors that of the module."""
    name = module.parent.name if module.name == "__init__.py" else module.stem
    folder = TESTS / module.parent.relative_to(PACKAGE)
    return (folder / f"test_{name}.py").exists() or any(folder.glob(f"test_{name}_*.py"))


def test_every_module_has_a_test_file_in_the_mirrored_folder() -> None:
    modules = [path for path in sorted(PACKAGE.rglob("*.py")) if defines_something(path)]
    without = {path.relative_to(PACKAGE).as_posix() for path in modules if not has_tests(path)}
    assert without == {*WITHOUT_TESTS_OF_THEIR_OWN}


# --- time

SLEEPS: Final = {"asyncio.sleep", "time.sleep"}
VIRTUAL_TIME: Final = {"run_virtually", "virtually"}
MAY_SLEEP: Final = TESTS / "waiting.py"


def is_program(path: Path) -> bool:
    """Whether a module belongs to a program, such as the benchmarks, and not to the tests."""
    folders = path.relative_to(TESTS).parents[:-1]
    return any((TESTS / folder / "__main__.py").exists() for folder in folders)


def real_sleeps(tree: ast.Module) -> Iterator[int]:
    """Yield the lines in which a module sleeps in real time. `sleep(0)` only lets other tasks run."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    if VIRTUAL_TIME & {alias.name for each in imports for alias in each.names}:
        return
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module="asyncio" | "time", names=names):
                if any(alias.name == "sleep" for alias in names):
                    yield node.lineno
            case ast.Call(func=ast.Attribute(attr="sleep") as function, args=[seconds]):
                if ast.unparse(function) in SLEEPS and ast.unparse(seconds) != "0":
                    yield node.lineno


def test_only_the_module_for_real_waits_sleeps() -> None:
    paths = [path for path in sorted(TESTS.rglob("*.py")) if not is_program(path) and path != MAY_SLEEP]
    assert [
        f"{path.relative_to(TESTS)}:{line}"
        for path in paths
        for line in real_sleeps(ast.parse(path.read_text(encoding="utf-8")))
    ] == []


IMPATIENT: Final = {"AsyncOpenAI", "OpenAI", "httpx2.AsyncClient", "httpx2.Client", "DefaultAsyncHttpxClient"}
"""Clients that by default wait 5 s for a connection, which a busy machine exceeds."""
AS_USERS_START_THEM: Final = {TESTS / "cli" / "original_script.py", TESTS / "clients" / "scripts"}


def test_the_clients_of_tests_wait_as_long_as_the_tests_do() -> None:
    assert [
        f"{path.relative_to(TESTS)}:{node.lineno}"
        for path in sorted(TESTS.rglob("*.py"))
        if not AS_USERS_START_THEM & {path, *path.parents}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).removeprefix("openai.") in IMPATIENT
        if not {"timeout", "http_client", "transport"} & {keyword.arg for keyword in node.keywords}
    ] == []


# --- signals

INHERITED: Final = """
import signal, subprocess, sys
from tests import conftest

conftest.pytest_configure()
look = "import signal; print(signal.getsignal(signal.SIGINT).__name__, signal.getsignal(signal.SIGHUP).name)"
subprocess.run([sys.executable, "-c", look], check=True)
"""


def test_processes_react_to_signals_that_the_tests_inherited_as_ignored() -> None:
    """As in the background, and under nohup."""
    script = 'trap "" INT HUP; exec "$0" -c "$1"'
    told = subprocess.check_output(["sh", "-c", script, sys.executable, INHERITED], text=True)
    assert told == "default_int_handler SIG_DFL\n"
