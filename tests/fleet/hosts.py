"""Hosts to run a fleet on: this machine, or network namespaces that are connected to it."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

GATEWAY = "10.77.0.1"


@dataclass(frozen=True)
class Host:
    """Where processes run.

    Args:
        prefix: What stands before a command to run it there.
        address: Its own.
        gateway: The address under which this machine is seen from there.
    """

    prefix: tuple[str, ...] = ()
    address: str = "127.0.0.1"
    gateway: str = "127.0.0.1"


THIS_MACHINE = Host()


@contextmanager
def namespaces(count: int) -> Iterator[list[Host]]:
    """So many hosts of their own, gone at the end."""
    with ExitStack() as stack:
        yield [stack.enter_context(_namespace(number)) for number in range(1, count + 1)]


@contextmanager
def _namespace(number: int) -> Iterator[Host]:
    name, outside, inside = f"fleet{number}", f"fleet{number}o", f"fleet{number}i"
    here, there = f"10.77.{number}.1", f"10.77.{number}.2"
    _ip("netns", "add", name)
    try:
        _ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", name)
        _ip("addr", "add", f"{here}/24", "dev", outside)
        _ip("link", "set", outside, "up")
        _ip("-n", name, "addr", "add", f"{there}/24", "dev", inside)
        for device in (inside, "lo"):
            _ip("-n", name, "link", "set", device, "up")
        # The same address from every host: a token endpoint with another address is another recipe.
        _ip("addr", "add", f"{GATEWAY}/32", "dev", outside)
        _ip("-n", name, "route", "add", GATEWAY, "via", here)
        yield Host(("ip", "netns", "exec", name), there, GATEWAY)
    finally:
        _ip("netns", "del", name)  # its end of the link goes with it, and so does ours


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
