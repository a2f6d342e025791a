"""A caller, with everything that its key allows."""

import asyncio
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final, Self, TypeVar, cast

import msgspec

from proxy.errors import EndpointForbidden, ModelForbidden
from proxy.settings import ANY_MODEL, CallerKey
from proxy.wire.endpoints import Endpoint, ModelPlace
from proxy.wire.request_json import MODEL_CHARACTERS_MAX
from proxy.wire.request_model import InspectedRequest, Steps, find_models, named_models

if TYPE_CHECKING:
    from limits import RateLimitItem

T = TypeVar("T")

ANY_ENDPOINT: Final = "*"

_SHOWS_NO_MODEL: Final = (
    "this key is limited to models, and requests to this endpoint can run a model that they do not name"
)
_NOT_BY_DEFAULT: Final = (
    "this key is limited to models, and such keys may use this endpoint only if their `endpoints` name it"
)
_UNCOUNTED: Final = (
    "this key has a token budget, and this endpoint can start work whose tokens cannot be counted; "
    "such keys may use it only if their `endpoints` name it"
)
_HIDDEN: Final = "this key is limited to models, and it is not certain which model this request runs"


class Caller(msgspec.Struct, frozen=True):
    """Who is calling, by the name that the key has in the configuration, and what the key allows.

    Args:
        name: The name used in logs, metrics and limits.
        models: Patterns of the models that it may use.
        endpoints: Names of the endpoints that it may use; None for the default, see `check_endpoint`.
        rate: Requests in a period; None for no limit, as below.
        budget: Tokens in a period.
        max_streams: Event streams at the same time.
        heartbeat: Replaces the upstream's `heartbeat`, in seconds.
        repairs: Names of repairs for this caller, in addition to those of the upstream.
    """

    name: str
    models: tuple[str, ...] = ANY_MODEL
    endpoints: tuple[str, ...] | None = None
    rate: "RateLimitItem | None" = None
    budget: "RateLimitItem | None" = None
    max_streams: int | None = None
    heartbeat: float | None = None
    repairs: tuple[str, ...] = ()

    @classmethod
    def of(cls, key: CallerKey) -> Self:
        """Return the caller that has this key."""
        return cls(
            name=key.name,
            models=key.models,
            endpoints=key.endpoints,
            rate=None if key.rate is None else _parse(key.rate),
            budget=None if key.tokens is None else _parse(key.tokens),
            max_streams=key.max_streams,
            heartbeat=key.heartbeat,
            repairs=key.repairs,
        )

    @property
    def is_limited(self) -> bool:
        """Whether this caller may use certain models only."""
        return self.models != ANY_MODEL

    def check_endpoint(self, endpoint: Endpoint) -> None:
        """Reject an endpoint that this caller may not use.

        Raises:
            EndpointForbidden: It is not listed, or a key with limits of models or tokens may not use it by
                default.
        """
        if self.endpoints is not None:
            if ANY_ENDPOINT not in self.endpoints and not endpoint.is_in(self.endpoints):
                raise EndpointForbidden
        elif self.is_limited and not endpoint.for_limited_keys:
            hidden = endpoint.model is ModelPlace.HIDDEN
            raise EndpointForbidden(_SHOWS_NO_MODEL if hidden else _NOT_BY_DEFAULT)
        elif self.budget is not None and endpoint.uncounted:
            raise EndpointForbidden(_UNCOUNTED)

    async def check_models(self, request: InspectedRequest) -> None:
        """Reject a request for a model that this caller may not use, or whose model is not certain.

        Raises:
            ModelForbidden
        """
        if self.is_limited:
            found = await _run(find_models(request))
            if found.ambiguity is not None:
                raise ModelForbidden(f"{_HIDDEN}: {found.ambiguity}")
            self._check(found.names)

    async def check_message(self, message: str | bytes) -> None:
        """Reject a message of a WebSocket that names a model that this caller may not use.

        Raises:
            ModelForbidden: The message names such a model, or may name one.
        """
        if self.is_limited:
            # Without the zeros of UTF-16, which some servers detect in a binary message.
            text = message.encode() if isinstance(message, str) else message.replace(b"\0", b"")
            models = await _run(named_models(text))
            if models is None:
                raise ModelForbidden(f"{_HIDDEN}: a message may name another one")
            self._check(models)

    def may_use(self, model: str) -> bool:
        """Whether the key allows a model. One whose name is too long to be compared is not allowed."""
        if not self.is_limited:
            return True
        if len(model) > MODEL_CHARACTERS_MAX or not model.isprintable():
            return False  # A server may take a control character for the end of a name.
        return any(fnmatchcase(model, allowed) for allowed in self.models)

    def _check(self, models: Iterable[str]) -> None:
        if not all(map(self.may_use, models)):
            raise ModelForbidden


async def _run(steps: Steps[T]) -> T:
    """Search a request, and let other tasks run between the steps."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast(T, end.value)
        await asyncio.sleep(0)


def _parse(limit: str) -> "RateLimitItem":
    from limits import parse

    return parse(limit)
