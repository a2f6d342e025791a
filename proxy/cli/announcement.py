"""What `serve` says when it begins: its addresses, unsafe settings, and the banner."""

import socket

from proxy.access import uses_default_keys, uses_original_key
from proxy.cli.banner import print_banner
from proxy.cli.server import address_of
from proxy.descriptors import descriptors_max
from proxy.server.limits import descriptors_for, fit_connections
from proxy.settings import Access, Settings, mask_url
from proxy.settings.access import weak_keys
from proxy.telemetry import get_logger


def announce(settings: Settings, sockets: list[socket.socket], scheme: str = "http") -> None:
    """Log the address and unsafe settings; print a banner on a terminal."""
    log = get_logger("proxy")
    addresses = [_url(listener, scheme) for listener in sockets]
    upstreams = {name: mask_url(section.base_url) for name, section in settings.upstreams.items()}
    log.info("serving", addresses=addresses, upstreams=upstreams)
    if settings.access.mode == "open":
        log.warning(
            "access_open",
            meaning="no key is required: anyone who can reach this address can use the upstream",
        )
    if settings.chat is not None and settings.chat.secret is None and settings.gateway is None:
        log.warning("chat_secret_unset", meaning="visitors are forgotten at every restart")
    if settings.logs.bodies:
        log.warning("bodies_logged", meaning="prompts and answers are written to the log")
    _announce_connections(settings.limits.max_connections)
    _announce_keys(settings.access)
    if addresses:
        print_banner(settings, addresses[0])


def _announce_connections(wanted: int) -> None:
    """Warn if the process may not open the files that so many connections need."""
    fitting = fit_connections(wanted)
    if fitting < wanted:
        get_logger("proxy").warning(
            "connections_limited", max_connections=wanted, in_effect=fitting,
            open_files_max=descriptors_max(),
            meaning="each process accepts fewer connections than configured: each takes two open files",
            cure=f"raise the hard limit of open files to {descriptors_for(wanted)} (LimitNOFILE of systemd, "
            "`ulimit -Hn`), or lower [limits] max_connections",
        )  # fmt: skip


def _announce_keys(access: Access) -> None:
    """Warn about weak keys and about default keys."""
    log = get_logger("proxy")
    for caller in weak_keys(access):
        log.warning(
            "weak_key", caller=caller, meaning="the key has fewer than 16 characters and could be guessed",
            cure="set a longer one: `openssl rand -hex 24`",
        )  # fmt: skip
    if access.mode == "open":
        return
    if uses_default_keys(access):
        log.warning(
            "default_keys", meaning="`sk-local` and `fake key` are public: they work only for programs that "
            "connect directly from this machine; behind nginx and from other machines they are answered 401",
            cure='add a key of your own to [[access.keys]], or set mode = "open"',
        )  # fmt: skip
    if not uses_original_key(access):
        log.info(
            "original_key_rejected",
            meaning="callers that send the key of the Flask original, `fake key`, are answered 401",
            cure='give them a key of [[access.keys]], or set mode = "open"',
        )


def _url(listener: socket.socket, scheme: str) -> str:
    address = address_of(listener)
    return address if listener.family == socket.AF_UNIX else f"{scheme}://{address}"
