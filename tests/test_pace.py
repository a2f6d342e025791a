"""The pace, and the rule that every deadline of a test is scaled by it."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

TESTS: Final = Path(__file__).parent
SHORTEST_DEADLINE_SECONDS: Final = 0.5
"""Shorter timeouts are meant to expire."""
OF_THEIR_OWN: Final = ("benchmarks/", "clients/scripts/", "fleet/")
"""Modules that measure time, or run in processes without a pace."""


def pace(**environment: str) -> str:
    code = "from tests.pace import PACE; print(PACE)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=TESTS.parent, env=environment, check=True, capture_output=True
    )
    return run.stdout.decode().strip()


def test_the_pace_can_be_set() -> None:
    assert pace(PROXY_TEST_PACE="3.5") == "3.5"


@pytest.mark.parametrize("unset", [{}, {"PROXY_TEST_PACE": ""}])
def test_the_pace_is_measured_and_shortens_no_deadline(unset: dict[str, str]) -> None:
    assert float(pace(**unset)) >= 1.0


def fixed_deadlines(tree: ast.Module) -> list[int]:
    """Return the lines that limit a wait by a number, unless the clock of the loop is virtual."""
    virtual = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.AsyncFunctionDef) and "virtually" in map(ast.unparse, node.decorator_list)
        for inner in ast.walk(node)
    }
    return [
        node.lineno
        for node in ast.walk(tree)
        if node not in virtual
        and isinstance(node, ast.Call)
        and ast.unparse(node.func) in {"asyncio.timeout", "asyncio.wait_for", "asyncio.wait"}
        for bound in [*node.args, *(keyword.value for keyword in node.keywords)]
        if isinstance(bound, ast.Constant)
        and isinstance(bound.value, int | float)
        and bound.value >= SHORTEST_DEADLINE_SECONDS
    ]


def test_every_deadline_is_paced() -> None:
    found = []
    for path in sorted(TESTS.rglob("*.py")):
        name = path.relative_to(TESTS).as_posix()
        if not name.startswith(OF_THEIR_OWN):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found += [f"{name}:{line}" for line in fixed_deadlines(tree)]
            found += [
                f"{name}:{node.lineno}"
                for node in tree.body
                if isinstance(node, ast.Assign | ast.AnnAssign)
                and "PATIENCE" in ast.unparse(node)
                and isinstance(node.value, ast.Constant)
            ]
    assert found == []
