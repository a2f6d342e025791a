"""A token endpoint that acts as a vendor's: each path has the reply of its documentation."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from quart import Response, request

from tests.credentials.sources.token_endpoint import Asked, TokenEndpoint


class Says(NamedTuple):
    """A reply."""

    body: Any
    status: int = 200
    headers: Mapping[str, str] = {}


@dataclass
class Vendor(TokenEndpoint):
    """Answers by path; any other path is an error of the test."""

    replies: dict[str, Says] = field(default_factory=dict)

    async def _answer(self) -> Response:
        reply = self.replies[request.path]
        self.body, self.status = json.dumps(reply.body).encode(), reply.status
        self.headers = dict(reply.headers)
        return await super()._answer()


def path_of(asked: Asked) -> str:
    """Return the path of a request."""
    return urlsplit(asked.target).path


def query_of(asked: Asked) -> dict[str, str]:
    """Return the query of a request, in which each field must occur once."""
    return _once(parse_qsl(urlsplit(asked.target).query, strict_parsing=True))


def form_of(asked: Asked) -> dict[str, str]:
    """Return the form of a request."""
    assert asked.headers["content-type"] == "application/x-www-form-urlencoded"
    return _once(parse_qsl(asked.body.decode("ascii"), strict_parsing=True))


def json_of(asked: Asked) -> Any:
    """Return the JSON of a request."""
    assert asked.headers["content-type"] == "application/json"
    return json.loads(asked.body)


def _once(pairs: list[tuple[str, str]]) -> dict[str, str]:
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)
