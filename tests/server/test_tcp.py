"""What the kernel knows of a connection."""

import contextlib
import socket
import sys
from collections.abc import Iterator

import pytest

from proxy.server import tcp
from tests.loopback import until

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="states have Linux's numbers")


@contextlib.contextmanager
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The two ends of a TCP connection."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()) as caller,
        listening.accept()[0] as accepted,
    ):
        yield caller, accepted


@on_linux
async def test_a_half_closed_connection_has_another_state_than_a_reset_one() -> None:
    with connected() as (caller, accepted):
        assert tcp.state(accepted) not in {tcp.CLOSE, tcp.CLOSE_WAIT}
        caller.shutdown(socket.SHUT_WR)
        await until(lambda: tcp.state(accepted) == tcp.CLOSE_WAIT)
    with connected() as (caller, accepted):
        tcp.prepare_reset(caller)
        caller.close()
        await until(lambda: tcp.state(accepted) == tcp.CLOSE)


async def test_a_prepared_connection_ends_with_a_reset() -> None:
    with connected() as (caller, accepted):
        tcp.prepare_reset(accepted)
        accepted.close()
        with pytest.raises(ConnectionResetError):
            caller.recv(1)


@on_linux
async def test_bytes_are_unacknowledged_until_the_peer_has_them() -> None:
    with connected() as (caller, accepted):
        accepted.settimeout(0)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += accepted.send(bytes(65536))
        assert 0 < tcp.unacknowledged(accepted) <= sent
        read = 0
        while read < sent:
            read += len(caller.recv(65536))
        await until(lambda: tcp.unacknowledged(accepted) == 0)


def test_without_a_tcp_socket_nothing_is_known() -> None:
    assert tcp.state(None) == tcp.unacknowledged(None) == 0
    tcp.prepare_reset(None)
    one, other = socket.socketpair()
    with one, other:
        assert tcp.state(one) == 0


def test_of_a_closed_socket_nothing_is_known() -> None:
    with connected() as (caller, _):
        caller.close()
        assert tcp.state(caller) == tcp.unacknowledged(caller) == 0
        tcp.prepare_reset(caller)


@pytest.mark.parametrize(
    ("name", "address"),
    [
        (("127.0.0.1", 80), ("127.0.0.1", 80)),
        (("::1", 80, 0, 0), ("::1", 80)),
        ("/run/socket", None),
        ("", None),
        (None, None),
    ],
)
def test_only_tcp_sockets_have_an_address(name: object, address: tuple[str, int] | None) -> None:
    assert tcp.address(name) == address
