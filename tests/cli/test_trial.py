"""Trials of credentials and upstreams: which sections they need, and which parts of replies they show."""

import pytest

from proxy.cli.trial import dependencies_of, outline_of, try_upstream, with_dependencies
from proxy.credentials.sources.reply import Reply
from proxy.credentials.token import FetchedToken
from proxy.secret import Secret
from proxy.settings import Settings, load_settings
from proxy.shipped import shipped
from tests.raw_upstream import Conversation, raw_upstream


@pytest.fixture
def settings() -> Settings:
    """Return the runnable default with a credential that needs another one."""
    loaded = load_settings(shipped("config/proxy.toml"), {})
    section = loaded.credentials["corp"]
    return loaded.model_copy(update={"credentials": {**loaded.credentials, "unused": section}})


def test_a_trial_needs_no_credential_but_its_own(settings: Settings) -> None:
    assert dependencies_of("corp", settings.credentials) == ["corp"]
    reduced = with_dependencies(settings, "corp")
    assert [*reduced.credentials] == ["corp"]
    assert reduced.gateway is not None


def test_a_reply_is_shown_without_the_token_and_the_request(settings: Settings) -> None:
    section = settings.credentials["corp"]
    text = '{"code": 0, "data": {"token": "canary-token-1234567890"}, "echo": "demo-secret"}'
    body = {"code": 0, "data": {"token": "canary-token-1234567890"}, "echo": "demo-secret"}
    reply = Reply(body, {"x-token": "canary-token-1234567890"}, 0.0, text)
    shown = outline_of(reply, section, FetchedToken(Secret("canary-token-1234567890"), 300.0))
    assert shown.startswith(f"status 200, {len(text)} bytes; possible secrets are masked\n")
    assert "canary" not in shown
    assert "demo-secret" not in shown
    assert "code" in shown


@pytest.mark.parametrize(
    ("status", "good", "words"),
    [
        ("200 OK", True, "answered 200"),
        ("400 Bad Request", True, "answered 400"),
        ("403 Forbidden", False, "rejects our token"),
        ("500 Oops", False, "the fault is on the upstream's side"),
        ("302 Found", False, "a redirect, which is not followed"),
    ],
)
async def test_an_upstream_is_judged_by_its_list_of_models(
    settings: Settings, status: str, words: str, *, good: bool
) -> None:
    async def answer(talk: Conversation) -> None:
        await talk.answer(b"{}", "Location: /elsewhere", status=status)

    async with raw_upstream(answer) as upstream:
        section = settings.upstreams["chat"].model_copy(
            update={"base_url": f"{upstream.url}/v1", "credential": None}
        )
        trial = await try_upstream(settings.model_copy(update={"upstreams": {"chat": section}}), "chat")
    assert trial.good is good
    assert words in trial.words
    assert upstream.requests[0].target == b"/v1/models"
