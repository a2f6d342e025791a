"""Every regular expression of the package takes linear time."""

import ast
import importlib
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import proxy

PACKAGE: Final = Path(proxy.__file__).parent
SCANNING: Final = {"findall", "finditer", "search", "split", "sub", "subn"}
MATCHING: Final = {"match", "fullmatch", "pattern"}
SIZES: Final = (16, 32, 256, 1 << 10, 1 << 12, 1 << 14)
SECONDS_MAX: Final = 0.02
"""Linear time for 16 KiB is a twentieth of this, quadratic time twenty times as much."""


PARTS: Final = sorted(
    path.name for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
)
"""The modules and packages directly in `proxy`."""


def expressions(part: str) -> Iterator[tuple[str, re.Pattern[Any], bool]]:
    """Yield each expression of a part with its name, and whether the module searches or only matches it."""
    top = PACKAGE / part
    for path in sorted(top.rglob("*.py")) if top.is_dir() else [top]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        uses = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id.isupper()]
        matching = [
            node.value.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and node.attr in MATCHING and isinstance(node.value, ast.Name)
        ]
        # One use is the definition. Any other may search, for example within a loop over several of them.
        scanned = {name for name, count in Counter(uses).items() if count > 1 + matching.count(name)}
        name = path.relative_to(PACKAGE.parent).with_suffix("").as_posix().replace("/", ".")
        module = importlib.import_module(name.removesuffix(".__init__"))
        for variable, value in vars(module).items():
            for number, pattern in enumerate(patterns_in(value)):
                yield f"{name}.{variable}[{number}]", pattern, variable in scanned or not variable.isupper()
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("re.") and node.args:
                function = ast.unparse(node.func).removeprefix("re.")
                if function not in {"compile", "escape"} and isinstance(node.args[0], ast.Constant):
                    pattern = re.compile(node.args[0].value)
                    yield f"{name}:{node.lineno}", pattern, function in SCANNING


def patterns_in(value: object) -> Iterator[re.Pattern[Any]]:
    """Yield the expressions in a constant."""
    waiting = deque([value])
    while waiting:
        item = waiting.popleft()
        if isinstance(item, re.Pattern):
            yield item
        elif isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, list | tuple | set | frozenset):
            waiting += item


def test_the_expressions_are_found() -> None:
    assert len([*expressions("wire")]) > 40


def seconds(run: Callable[[], object]) -> float:
    """Return the shortest time of several runs."""
    best = 1e9
    for _ in range(5):
        began = time.thread_time()
        run()
        best = min(best, time.thread_time() - began)
        if best <= SECONDS_MAX:
            break
    return best


def exhaust(pattern: re.Pattern[Any], text: Any, *, scanned: bool) -> None:
    """Use an expression as the package does."""
    if scanned:
        deque(pattern.finditer(text), maxlen=0)
    else:
        pattern.match(text)
        pattern.fullmatch(text)


@pytest.mark.parametrize("part", PARTS)
def test_an_expression_takes_linear_time(part: str) -> None:
    for name, pattern, scanned in expressions(part):
        check(name, pattern, scanned=scanned)


def check(name: str, pattern: re.Pattern[Any], *, scanned: bool) -> None:
    """Use an expression on growing repetitions of what it matches."""
    fails = "\0" if isinstance(pattern.pattern, str) else b"\0"

    @settings(
        max_examples=25,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=[*HealthCheck],
    )
    @given(st.from_regex(pattern), st.integers(1, 12), st.integers(0, 6), st.booleans(), st.booleans())
    def repeat(found: Any, length: int, start: int, whole: bool, matches: bool) -> None:  # noqa: FBT001
        end = fails[:0] if matches else fails
        unit = (found[:64] if whole else found[start : start + length]) or found[:64]
        if not unit:
            return
        for size in SIZES:
            text = found[:start] + unit * (size // len(unit) + 1) + end
            taken = seconds(partial(exhaust, pattern, text, scanned=scanned))
            assert taken <= SECONDS_MAX, (
                f"{name}: {pattern.pattern!r} takes {taken:.3f} s for {size} of {unit!r}"
            )

    repeat()
