"""Rules for the whole code base, one test each. The import contracts are in pyproject.toml."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from importlinter import cli as import_linter

import proxy

PACKAGE: Final = Path(proxy.__file__).parent
ROOT: Final = PACKAGE.parent
OWNS_ITS_TASKS: Final = "proxy/credentials/cached_source.py"
"""The one module that starts a task outside a task group: a shared fetch outlives its callers."""

WITHOUT_EFFECT: Final = """
import importlib, logging, os, pkgutil, signal, sys, threading
def state():
    root = logging.getLogger()
    return (
        dict(os.environ), threading.active_count(), {s: signal.getsignal(s) for s in signal.valid_signals()},
        root.level, list(root.handlers), os.getcwd(), sys.stdout, sys.stderr,
        sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")[:-1]),
    )
import proxy
before = state()
for module in pkgutil.walk_packages(proxy.__path__, "proxy."):
    if module.name != "proxy.__main__":
        importlib.import_module(module.name)
after = state()
assert before == after, [pair for pair in zip(before, after) if pair[0] != pair[1]]
"""


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Every module of the package by its path, with its syntax tree."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


MODULES: Final = dict(modules())


def test_the_import_contracts_hold() -> None:
    assert import_linter.lint_imports(str(ROOT / "pyproject.toml"), no_cache=True, no_logo=True) == 0


def test_every_third_party_library_has_a_home_in_the_contracts() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (homes,) = [contract for contract in contracts if "one home" in contract["name"]]
    imported = {
        name.partition(".")[0]
        for tree in MODULES.values()
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }

    assert imported - {*sys.stdlib_module_names} - {"proxy"} == {*homes["forbidden_modules"]}


def test_importing_has_no_effect() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_EFFECT], cwd=ROOT, check=True)


def test_every_module_says_what_it_is_for() -> None:
    assert [path for path, tree in MODULES.items() if not ast.get_docstring(tree)] == []


def test_there_are_no_globals() -> None:
    assert [
        f"{path}:{node.lineno}"
        for path, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Global)
    ] == []


def test_there_are_no_loose_tasks() -> None:
    assert [
        f"{path}:{node.lineno}"
        for path, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr in {"create_task", "ensure_future"}
        and ast.unparse(node.value) != "group"
        and path != OWNS_ITS_TASKS
    ] == []
