"""How long tokens really live, where they die before their announced end (pure).

Issuers restart, gateways cap sessions, and clocks differ: a token announced to live for five minutes may be
rejected after eight seconds. Two early deaths in a row are believed: from then on the observed life decides
when a token is refreshed and how long it is sent. A few healthy lives later a longer one is tried again.
"""

import math
from typing import Final

EARLY_DEATHS: Final = 2
HEALTHY_LIVES: Final = 5
"""So many lives must be healthy before a longer one is tried; twice as many after each try that fails."""
HEALTHY_LIVES_MAX: Final = 80
GROWTH: Final = 1.5
SECONDS_MIN: Final = 1.0


class LearnedLife:
    """The observed life of one credential's tokens.

    A death proves little where somebody else fetched a token in the meantime, or where the upstream accepts
    the token again; its user leaves such deaths out.
    """

    def __init__(self) -> None:
        self.seconds: float | None = None
        """The observed life, while it is believed over the announced one."""
        self._deaths: list[float] = []
        self._healthy = 0
        self._patience = HEALTHY_LIVES

    @property
    def longest(self) -> float:
        """The longest life that a token is believed to have."""
        return math.inf if self.seconds is None else self.seconds

    def died(self, age: float, *, certain: bool = True) -> bool:
        """Note a death before the token's end, and return whether the believed life has changed.

        Args:
            age: When the upstream rejected it, in seconds.
            certain: Whether its end was read by the issuer's clock. If it was read by ours, one death is
                enough to show that the clocks differ.
        """
        age = max(age, SECONDS_MIN)
        self._healthy = 0
        if self.seconds is not None:
            self._patience = min(2 * self._patience, HEALTHY_LIVES_MAX)
            shorter = min(self.seconds, age)
            changed, self.seconds = shorter != self.seconds, shorter
            return changed
        self._deaths.append(age)
        if certain and len(self._deaths) < EARLY_DEATHS:
            return False
        self.seconds = min(self._deaths)
        return True

    def lived(self, announced: float) -> bool:
        """Note a life that was healthy to its end, and return whether the believed life has changed.

        Args:
            announced: What the issuer says of the life, in seconds.
        """
        self._deaths.clear()
        if self.seconds is None:
            return False
        self._healthy += 1
        if self._healthy < self._patience:
            return False
        self._healthy = 0
        longer = GROWTH * self.seconds
        if longer < announced:
            self.seconds = longer
        else:
            self.seconds, self._patience = None, HEALTHY_LIVES
        return True
