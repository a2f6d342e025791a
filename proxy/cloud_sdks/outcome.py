"""The result of a fetch with an SDK, without the words of the SDK, which may quote a reply (pure)."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Final, TypeAlias

REFUSALS: Final = frozenset({400, 401, 403})
"""The only statuses with which an issuer refuses a request. Any other, even 404, may come from an
intermediary that is being restarted."""

TIMED_OUT: Final = "TimedOut"
TOO_LARGE: Final = "TooLarge"
NO_AWS_CREDENTIALS: Final = "NoAwsCredentials"
"""Failures without an exception of an SDK."""


@dataclass(frozen=True, slots=True, repr=False)
class SdkToken:
    """A token."""

    token: object
    """Not checked yet."""
    lifetime: float
    """Seconds."""
    refresh_in: float | None = None
    """The number of seconds after which the issuer wants the token to be refreshed."""
    certain: bool = True
    """Whether the issuer gave a duration, and not a point in time by a clock that may differ from ours."""


@dataclass(frozen=True, slots=True)
class SdkFailure:
    """The reason why there is no token."""

    error: str
    """The name of the exception, or one of the names above."""
    permanent: bool
    """Whether the issuer is known to refuse the request, or the settings cannot work."""
    status: int | None = None
    """The status of the last reply."""
    retry_after: str | None = None
    """The Retry-After header of the last reply."""
    date: str | None = None
    """The Date header of the last reply."""


SdkOutcome: TypeAlias = SdkToken | SdkFailure
_KINDS: Final[Mapping[str, type[SdkOutcome]]] = {kind.__name__: kind for kind in (SdkToken, SdkFailure)}


def write_outcome(outcome: SdkOutcome) -> bytes:
    """Return the output of the process."""
    return json.dumps([type(outcome).__name__, asdict(outcome)]).encode()


def read_outcome(text: bytes) -> SdkOutcome:
    """Return what `write_outcome` wrote.

    Raises:
        ValueError: It is something else.
    """
    try:
        kind, values = json.loads(text)
        return _KINDS[kind](**values)
    except (TypeError, KeyError, ValueError):
        raise ValueError("not an outcome") from None  # that error may contain the text


@dataclass(slots=True)
class LastReply:
    """The reply to the last request of a fetch, if there was one."""

    status: int | None = None
    retry_after: str | None = None
    date: str | None = None
    was_expected: bool = False
    """Whether a request was sent at all."""

    def expect(self) -> None:
        """Note that a request is being sent."""
        self.was_expected = True
        self.status = self.retry_after = self.date = None

    def note(self, status: int, headers: Mapping[str, str]) -> None:
        """Note the reply."""
        found = {name.lower(): value for name, value in headers.items()}
        self.status, self.retry_after, self.date = status, found.get("retry-after"), found.get("date")


class UnusableSettings(Exception):
    """The settings, or files that they name, cannot work. The argument is the name of the SDK's exception."""


@contextmanager
def setting_up() -> Iterator[None]:
    """Treat any error as one of the settings, because nothing is sent yet."""
    try:
        yield
    except Exception as error:  # the SDKs have no common base class of errors
        raise UnusableSettings(type(error).__name__) from error


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Return an exception and the chain of its causes."""
    while error is not None:
        yield error
        error = error.__cause__
