"""The limit of open files: it is raised as far as the hard limit allows, and never lowered."""

import math
import resource

import pytest

from proxy.descriptors import descriptors_max, raise_descriptors_max

UNLIMITED = resource.RLIM_INFINITY


class Limit:
    """The limits of a process, which only this object changes."""

    def __init__(self, soft: int, hard: int, system_max: float = math.inf) -> None:
        self.soft, self.hard, self.system_max = soft, hard, system_max

    def getrlimit(self, kind: int) -> tuple[int, int]:
        assert kind == resource.RLIMIT_NOFILE
        return self.soft, self.hard

    def setrlimit(self, kind: int, limits: tuple[int, int]) -> None:
        assert kind == resource.RLIMIT_NOFILE
        assert limits[1] == self.hard
        if limits[0] > self.system_max:
            raise ValueError("current limit exceeds maximum limit")
        self.soft = limits[0]


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (Limit(1024, 4096), 2000),
        (Limit(1024, UNLIMITED), 2000),
        (Limit(1024, 1024), 1024),
        (Limit(1024, 1500), 1500),
        (Limit(65536, 65536), 65536),
        (Limit(UNLIMITED, UNLIMITED), math.inf),
        (Limit(256, UNLIMITED, system_max=1000), 256),
    ],
    ids=["hard is higher", "no hard limit", "no more", "a part", "enough", "no limit", "rejected"],
)
def test_the_limit_is_raised_to_what_is_wanted_if_the_hard_limit_allows_it(
    monkeypatch: pytest.MonkeyPatch, limit: Limit, expected: float
) -> None:
    monkeypatch.setattr(resource, "getrlimit", limit.getrlimit)
    monkeypatch.setattr(resource, "setrlimit", limit.setrlimit)
    assert raise_descriptors_max(2000) == expected
    assert descriptors_max() == expected
