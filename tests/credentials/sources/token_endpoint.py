"""A token endpoint that records requests and sends the replies that a test chooses."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from quart import Quart, Response, request

from proxy.credentials.sources import OtherCredentials, TokenFetchError
from proxy.credentials.sources.http import HttpTokenSource
from proxy.credentials.token import FetchedToken
from proxy.settings import Expiry, HttpCredential, Success
from tests.pace import PATIENCE


@dataclass(frozen=True)
class Asked:
    """A request as it was received."""

    method: str
    target: str
    headers: Mapping[str, str]
    """Header names in lower case."""
    body: bytes


@dataclass
class TokenEndpoint:
    """The address of a token endpoint, its next replies, and its requests."""

    url: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b'{"access_token": "token-1", "expires_in": 300}'
    content_type: str = "application/json"
    asked: list[Asked] = field(default_factory=list)

    def says(self, value: Any) -> None:
        """Answer all later requests with this JSON."""
        self.body = json.dumps(value).encode()

    def app(self) -> Quart:
        """Return the ASGI app of the endpoint, which answers every path and method alike."""
        app = Quart(__name__, static_folder=None)
        app.before_request(self._answer)
        return app

    async def _answer(self) -> Response:
        scope = request.scope
        query = scope["query_string"].decode()
        body = await request.get_data(cache=False, as_text=False)
        assert isinstance(body, bytes)
        self.asked.append(
            Asked(
                method=request.method,
                target=scope["raw_path"].decode() + (f"?{query}" if query else ""),
                headers={name.lower(): value for name, value in request.headers.items()},
                body=body,
            )
        )
        return Response(self.body, self.status, self.headers, content_type=self.content_type)


async def fetch(recipe: HttpCredential, others: OtherCredentials | None = None) -> FetchedToken:
    """Run a recipe once."""
    source = HttpTokenSource(recipe, others)
    try:
        return await source.fetch()
    finally:
        await source.close()


async def failure_of(recipe: HttpCredential, others: OtherCredentials | None = None) -> TokenFetchError:
    """Return the error of a recipe that must fail."""
    try:
        fetched = await fetch(recipe, others)
    except TokenFetchError as error:
        return error
    raise AssertionError(f"it brought {fetched}")


def recipe_of(
    *,
    json: Any = None,
    success: tuple[str, Any] | None = None,
    expires: tuple[tuple[str, str], ...] = (),
    **keys: Any,
) -> HttpCredential:
    """Return an unvalidated section of the HTTP source, with lifetimes as pairs of path and unit."""
    places = (Expiry.model_construct(path=path or None, unit=cast(Any, unit)) for path, unit in expires)
    sign = success and Success.model_construct(path=success[0], equals=success[1])
    patient = {"connect_timeout": PATIENCE, "timeout": PATIENCE}
    given = {"token": "access_token", **patient, **keys}
    return HttpCredential.model_construct(
        source="http", json_body=json, success=sign, expires=tuple(places), **given
    )
