"""Late values in a request for a token: the time, an id, the token of another credential."""

import contextlib
import json
import re
import time
from pathlib import Path
from typing import cast

import pytest

from proxy.credentials.sources import TokenFetchError
from proxy.credentials.sources.http import HttpTokenSource
from proxy.credentials.sources.request_values import Moment, credentials_in
from proxy.credentials.token import Token
from proxy.errors import TokenUnavailable
from proxy.secret import Secret
from proxy.settings.interpolation import Interpolation, LateText
from tests.credentials.fakes import build_token
from tests.credentials.sources.token_endpoint import TokenEndpoint, failure_of, recipe_of
from tests.pace import PATIENCE

MOMENT = Moment({"k8s": build_token("t0ken")}, now=1_700_000_000.7)


def late(text: str, **environ: str) -> LateText:
    """Return a text as the settings read it."""
    expanded = Interpolation(environ, Path()).text(text)
    assert isinstance(expanded, LateText)
    return expanded


class Others:
    """Another credential, whose token the request contains."""

    def __init__(self, error: TokenUnavailable | None = None) -> None:
        self.error = error
        self.uses: list[tuple[str, str]] = []
        self.said: list[str] = []
        self.other_helps = True

    def use(self, name: str, url: str) -> "Others":
        """Note it."""
        self.uses.append((name, url))
        return self

    async def token(self) -> Token | None:
        """Return always the same token."""
        if self.error is not None:
            raise self.error
        return MOMENT.tokens["k8s"] if self.other_helps else None

    def accepted(self) -> None:
        """Note it."""
        self.said.append("accepted")

    def rejected(self, reason: str) -> bool:
        """Note it."""
        self.said.append(reason)
        return True


def test_each_reference_has_its_value() -> None:
    assert MOMENT.fill(late("a ${now} b")) == "a 1700000000 b"
    assert MOMENT.fill(late("${now_ms}")) == "1700000000700"
    assert MOMENT.fill(late("Bearer ${credential:k8s}")) == "Bearer t0ken"
    assert MOMENT.fill(late("${env:X}-${now}", X="x")) == "x-1700000000"
    first, second = cast(tuple[str, str], MOMENT.fill((late("${uuid}"), late("${uuid}"))))
    assert re.fullmatch(r"[0-9a-f-]{36}", first)
    assert first != second


def test_a_time_alone_is_a_number_in_json_and_text_elsewhere() -> None:
    body = {"at": late("${now}"), "ms": late("${now_ms}"), "text": late("t${now}"), "s": (Secret("x"), 1)}
    assert MOMENT.fill_json(body) == {
        "at": 1_700_000_000, "ms": 1_700_000_000_700, "text": "t1700000000", "s": ["x", 1],
    }  # fmt: skip
    assert MOMENT.fill({"at": late("${now}")}) == {"at": "1700000000"}


def test_the_credentials_that_a_request_needs_are_found_at_any_depth() -> None:
    value = {"a": ({"b": late("${credential:one}")}, late("${now}")), "c": late("${credential:two}")}
    assert {*credentials_in(value)} == {"one", "two"}


def test_nothing_secret_shows() -> None:
    text = late("${env:X} ${credential:k8s}", X="s3cret")
    assert "s3cret" not in repr(text)
    assert text.written == "${env:X} ${credential:k8s}"
    assert "t0ken" not in repr(MOMENT)


async def test_a_request_sends_the_token_of_another_credential(endpoint: TokenEndpoint) -> None:
    recipe = recipe_of(
        url=endpoint.url + "/token",
        headers={"X-Subject": late("Bearer ${credential:k8s}")},
        json={"sent": late("${now}")},
    )
    source = HttpTokenSource(recipe, Others())
    await source.fetch()
    await source.close()
    asked = endpoint.asked[0]
    assert asked.headers["x-subject"] == "Bearer t0ken"
    assert abs(json.loads(asked.body)["sent"] - time.time()) < PATIENCE


@pytest.mark.parametrize("status", [400, 401, 403])
async def test_after_a_rejection_the_next_request_has_another_token(
    endpoint: TokenEndpoint, status: int
) -> None:
    others, url = Others(), endpoint.url + "/token"
    source = HttpTokenSource(recipe_of(url=url, form={"subject_token": late("${credential:k8s}")}), others)
    for endpoint.status in (status, 503, 200, 200):
        with contextlib.suppress(TokenFetchError):
            await source.fetch()
    assert others.said == [f"a token endpoint answered {status}", "accepted", "accepted"]
    assert others.uses == [("k8s", url)] * 3  # the second request continued the first use
    endpoint.status = status
    with contextlib.suppress(TokenFetchError):
        await source.fetch()
    others.other_helps = False
    with pytest.raises(TokenFetchError, match="rejects the token of the credential k8s"):
        await source.fetch()
    await source.close()


async def test_without_the_other_token_nothing_is_sent(endpoint: TokenEndpoint) -> None:
    recipe = recipe_of(url=endpoint.url + "/token", form={"subject_token": late("${credential:k8s}")})
    error = await failure_of(recipe, Others(TokenUnavailable()))
    assert error.reason == "a credential in the request has no token"
    assert not error.permanent
    assert endpoint.asked == []
