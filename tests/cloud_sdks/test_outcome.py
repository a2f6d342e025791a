"""The output of the process, and what is known about the last reply."""

import pytest

from proxy.cloud_sdks.outcome import (
    LastReply,
    SdkFailure,
    SdkOutcome,
    SdkToken,
    UnusableSettings,
    causes,
    read_outcome,
    setting_up,
    write_outcome,
)


@pytest.mark.parametrize(
    "outcome",
    [
        SdkToken("token", 300.0, 60.0),
        SdkToken(None, -1.0),
        SdkFailure("TypeError", permanent=False, status=503, retry_after="17"),
        SdkFailure("FileNotFoundError", permanent=True),
    ],
)
def test_it_arrives_as_it_was_written(outcome: SdkOutcome) -> None:
    assert read_outcome(write_outcome(outcome)) == outcome


@pytest.mark.parametrize(
    "text",
    [b"", b"null", b"[]", b"{}", b"[1, 2, 3]", b'["SdkToken", {}]', b'["int", {}]', b"\xff", b"[[], 1]"],
)
def test_anything_else_is_an_error(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"^not an outcome$"):
        read_outcome(text)


def test_a_token_is_not_shown() -> None:
    assert "canary" not in repr(SdkToken("canary-token", 300.0))


def test_a_reply_is_that_to_the_last_request() -> None:
    reply = LastReply()
    assert (reply.status, reply.was_expected) == (None, False)

    reply.expect()
    reply.note(429, {"retry-After": "17", "DATE": "now"})
    assert (reply.status, reply.retry_after, reply.date, reply.was_expected) == (429, "17", "now", True)

    reply.expect()  # and this request gets no reply
    assert (reply.status, reply.retry_after, reply.date, reply.was_expected) == (None, None, None, True)


def test_an_error_of_the_settings_keeps_only_its_name() -> None:
    with pytest.raises(UnusableSettings) as caught, setting_up():
        raise ValueError("canary")

    assert str(caught.value) == "ValueError"
    assert [type(each) for each in causes(caught.value)] == [UnusableSettings, ValueError]
