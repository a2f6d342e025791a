"""Samples are charged to the innermost function that belongs to a stage, and a request makes few calls."""

import re
import subprocess
import sys
from collections.abc import Callable
from types import FrameType

import pytest

from tests.benchmarks.profile import ELSEWHERE, stage_of
from tests.pace import PATIENCE

CALLS_MAX = {"chat": 440, "burst": 510}
"""A little more than the calls of Python functions for a request and for a stream that arrives in one piece.
Neither the machine nor its other programs change their number; `make bench` shows what they cost."""

Call = Callable[[], FrameType]


def function_of(module: str, calls: Call) -> Call:
    """Return a function of this module that calls another one."""
    scope: dict[str, object] = {"__name__": module, "calls": calls}
    exec("def function(): return calls()", scope)  # noqa: S102 - a function's module is where it is compiled
    function: Call = scope["function"]  # type: ignore[assignment]
    return function


def stack(*modules: str) -> FrameType:
    """Return the innermost frame of functions of these modules, the outermost first."""
    call: Call = sys._getframe
    for module in reversed(modules):
        call = function_of(module, call)
    return call()


@pytest.mark.parametrize(
    ("modules", "stage"),
    [
        (["proxy.server.http1", "quart.app", "proxy.access.keys"], "key and limits"),
        (["proxy.access.keys", "hashlib"], "key and limits"),
        (["proxy.upstream.transport", "base64"], "HTTP client"),
        (["proxy.upstream.transport", "proxy.upstream.connections"], "upstream connections"),
        (["proxy.accessories"], ELSEWHERE),
    ],
)
def test_the_innermost_stage_is_charged(modules: list[str], stage: str) -> None:
    assert stage_of(stack("proxy.nowhere", *modules)) == stage


def test_without_python_code_it_is_the_event_loop() -> None:
    assert stage_of(None) == ELSEWHERE


def test_a_request_makes_few_calls() -> None:
    command = [sys.executable, "-m", "tests.benchmarks.profile", "--calls", "--rounds", "1"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout
    found = re.findall(r"^(\w+), calls a .*?^  all +([0-9.]+)", printed, re.MULTILINE | re.DOTALL)
    calls = {name: float(number) for name, number in found}
    assert calls.keys() == CALLS_MAX.keys(), printed
    assert all(0 < calls[name] <= most for name, most in CALLS_MAX.items()), printed
