"""Run what is searched step by step at once."""

from typing import TypeVar, cast

from proxy.wire.request_model import Steps

T = TypeVar("T")


def run_steps(steps: Steps[T]) -> T:
    """Return the result of all steps."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast(T, end.value)
