"""Look a host up, connect to it, and check its certificate."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from proxy.cli.doctor.findings import Finding
from proxy.transport_failure import FailureKind, TransportFailure, explain, origin_of

DNS_SECONDS: Final = 5.0
CONNECT_SECONDS: Final = 5.0
RENEWAL_DAYS: Final = 14
"""Certificates are usually renewed a month before they expire, so two weeks mean that a renewal failed."""
DAY_SECONDS: Final = 86400.0


def of_failure(failure: TransportFailure, subject: str) -> Finding:
    """Return the finding for a request that got no response."""
    cure = f"{failure.cure[0].upper()}{failure.cure[1:]}."
    values = {"origin": failure.origin, "happened": failure.happened, "cure": cure}
    return Finding(failure.kind.value, subject, values, str(failure))


async def check_network(
    subject: str, url: str, *, ca_file: Path | None = None, proxy: str | None = None
) -> AsyncIterator[Finding]:
    """Look up, connect, and shake hands; end after the first failure.

    With a forward proxy, only the connection to that proxy is tested: the rest is up to it.
    """
    origin = origin_of(url if proxy is None else proxy)
    parts = urlsplit(origin)
    host, port, is_tls = parts.hostname or "", parts.port or 0, parts.scheme == "https"
    try:
        async with asyncio.timeout(DNS_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(host, port)
    except (OSError, UnicodeError, TimeoutError) as error:
        silent = FailureKind.NAME_SERVER_SILENT.value
        failure = explain(error, origin)
        if isinstance(error, TimeoutError):
            yield Finding(silent, subject, {"origin": origin, "happened": failure.happened, "cure": ""})
        else:
            yield of_failure(failure, subject)
        return
    addresses = sorted({str(address[4][0]) for address in found})
    yield Finding("name_found", subject, {"host": host, "addresses": ", ".join(addresses[:4])})
    async with contextlib.AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, writer = await asyncio.open_connection(host, port)
                stack.callback(writer.close)
        except TimeoutError:
            yield Finding(FailureKind.CONNECT_TIMEOUT.value, subject, {"origin": origin})
            return
        except OSError as error:
            yield of_failure(explain(error, origin), subject)
            return
        if not is_tls:
            yield Finding("connected", subject, {"origin": origin})
            return
        try:
            context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
            async with asyncio.timeout(CONNECT_SECONDS):
                await writer.start_tls(context, server_hostname=host)
        except (OSError, TimeoutError) as error:
            yield of_failure(explain(error, origin), subject)
            return
        yield _certificate(writer, subject, origin)


def _certificate(writer: asyncio.StreamWriter, subject: str, origin: str) -> Finding:
    """Report the version of TLS, and how long the certificate is still valid."""
    tls = writer.get_extra_info("ssl_object")
    expires = ssl.cert_time_to_seconds(tls.getpeercert()["notAfter"])
    days = int((expires - time.time()) / DAY_SECONDS)
    values = {"origin": origin, "days": days, "version": tls.version()}
    return Finding("certificate_expires_soon" if days < RENEWAL_DAYS else "tls_works", subject, values)
