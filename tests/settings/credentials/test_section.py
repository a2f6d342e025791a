"""The keys of every credential: where a token is written, and which responses reject it."""

import pytest
from pydantic import ValidationError

from proxy.settings.credentials.section import CredentialSection, Inject, Invalidation, RequestSection


def refusal(section: type[Inject | Invalidation | RequestSection], **keys: object) -> str:
    """Return the error for these keys."""
    with pytest.raises(ValidationError) as refused:
        section.model_validate(keys)
    return str(refused.value)


def test_a_token_is_sent_in_authorization_by_default() -> None:
    assert (Inject().header, Inject().template) == ("Authorization", "Bearer {token}")
    assert Inject.model_validate({"header": "X-Key"}).template == "Bearer {token}"
    query = Inject.model_validate({"query": "access_token"})
    assert (query.header, query.query, query.template) == (None, "access_token", "{token}")


def test_a_token_is_sent_in_one_place_and_not_in_a_framing_header() -> None:
    refusal(Inject, header="X-Key", query="key")
    assert "controls the connection" in refusal(Inject, header="Content-Length")
    refusal(Inject, header="X-Key", template="without a place")


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"status": 200}, "would match every response"),
        ({"status": 200, "path": "code"}, "is required with path"),
        ({"status": 401, "in": [1]}, "is required with in"),
        ({"status": 100}, "status"),
    ],
)
def test_a_rejection_must_not_match_every_response(keys: dict[str, object], problem: str) -> None:
    assert problem in refusal(Invalidation, **keys)
    Invalidation.model_validate({"status": 200, "path": "code", "in": [401, "expired"]})


def test_a_key_file_needs_its_certificate(tmp_path: object) -> None:
    assert "requires client_cert as well" in refusal(RequestSection, source="http", client_key=__file__)


def test_the_default_rejection_is_a_401_and_tokens_are_shared_in_one_process() -> None:
    section = CredentialSection.model_validate({"source": "static"})
    assert section.invalidate_on == (Invalidation(status=401),)
    assert (section.sharing, section.reissue, section.default_ttl) == ("local", "independent", 300)
