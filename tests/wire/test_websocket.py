"""Rules for WebSockets: keys in subprotocols, the model in a query, close codes."""

import pytest

from proxy.errors import InvalidRequest
from proxy.wire.websocket import (
    Close,
    PartialMessage,
    find_model,
    message_size,
    rename_model,
    sendable_close,
    split_subprotocols,
    without_handshake,
)


@pytest.mark.parametrize(
    "pieces", [["a"], ["", "€", "", "a"], [b"a"], [b"\xff", b"", b"a"], [""], [b"", b""]]
)
def test_pieces_become_the_message(pieces: list[str] | list[bytes]) -> None:
    partial, size = PartialMessage(), 0
    for _ in range(2):
        for piece in pieces[:-1]:
            assert partial.add(piece, more=True) is None
            size += message_size(piece)
            assert partial.size == size
        message = partial.add(pieces[-1], more=False)
        assert message == type(pieces[0])().join(pieces)  # type: ignore[arg-type]
        assert type(message) is type(pieces[0])
        assert partial.size == 0
        size = 0


@pytest.mark.parametrize(("message", "size"), [("", 0), ("abc", 3), ("€", 3), ("😀", 4), (b"\xff", 1)])
def test_the_size_of_text_is_that_of_its_bytes(message: str | bytes, size: int) -> None:
    assert message_size(message) == size


def test_keys_and_accounts_are_taken_out_of_the_subprotocols() -> None:
    offered = ["realtime", "openai-insecure-api-key.k", "openai-organization.o", "openai-project.p", "other"]
    assert split_subprotocols(offered) == ([b"k"], ["realtime", "other"])


@pytest.mark.parametrize(
    ("query", "model"),
    [
        (b"", None),
        (b"a=b", None),
        (b"model=", ""),
        (b"model=gpt", "gpt"),
        (b"a&m%6fdel=g+p%2Ft&b", "g p/t"),
    ],
)
def test_the_model_is_read_as_servers_read_it(query: bytes, model: str | None) -> None:
    assert find_model(query) == model


def test_two_models_are_rejected() -> None:
    with pytest.raises(InvalidRequest):
        find_model(b"model=a&mode%6c=a")


def test_a_rename_leaves_the_rest_byte_for_byte() -> None:
    assert rename_model(b"a=%2f&&model=x&b=+;c", "n/w&") == b"a=%2f&&model=n%2Fw%26&b=+;c"


def test_headers_of_the_handshake_are_not_forwarded() -> None:
    kept = (b"openai-beta", b"realtime=v1")
    assert without_handshake([(b"Sec-WebSocket-Key", b"k"), kept, (b"sec-websocket-protocol", b"p")]) == [
        kept
    ]


@pytest.mark.parametrize(
    ("code", "sent"), [(1000, 1000), (1005, 1000), (1006, 1011), (1015, 1011), (1004, 1011), (0, 1011)]
)
def test_codes_that_may_not_be_sent_are_replaced(code: int, sent: int) -> None:
    assert sendable_close(Close(code)).code == sent


def test_a_long_reason_is_cut_at_a_character() -> None:
    assert sendable_close(Close(4000, "完" * 50)) == Close(4000, "完" * 41)
