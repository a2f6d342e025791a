"""The connection to a server: each step is a finding, and the first failure is the last one."""

from pathlib import Path

import pytest

from proxy.cli.doctor.findings import Finding
from proxy.cli.doctor.network import RENEWAL_DAYS, check_network
from tests.tls_servers import listening, make_certificate


async def findings(url: str, ca_file: Path | None = None, proxy: str | None = None) -> list[Finding]:
    """Return all findings about a URL."""
    return [finding async for finding in check_network("url", url, ca_file=ca_file, proxy=proxy)]


def ids(found: list[Finding]) -> list[str]:
    return [finding.id for finding in found]


@pytest.mark.parametrize(
    ("days", "last"), [(RENEWAL_DAYS + 2, "tls_works"), (RENEWAL_DAYS - 2, "certificate_expires_soon")]
)
async def test_a_certificate_is_reported_with_its_remaining_days(
    tmp_path: Path, days: int, last: str
) -> None:
    pem = make_certificate(tmp_path, valid=(-1, days))
    async with listening(certificate=pem) as port:
        found = await findings(f"https://127.0.0.1:{port}", ca_file=pem)
    assert ids(found) == ["name_found", last]
    assert found[-1].values["days"] == days - 1
    assert found[-1].values["version"] == "TLSv1.3"


async def test_an_unknown_issuer_is_the_last_finding(tmp_path: Path) -> None:
    async with listening(certificate=make_certificate(tmp_path)) as port:
        found = await findings(f"https://127.0.0.1:{port}")
    assert ids(found) == ["name_found", "certificate_self_signed"]


async def test_a_plain_server_is_connected_and_a_missing_one_refuses(closed_port: int) -> None:
    async with listening() as port:
        assert ids(await findings(f"http://127.0.0.1:{port}")) == ["name_found", "connected"]
    assert ids(await findings(f"http://127.0.0.1:{closed_port}")) == ["name_found", "refused"]


async def test_with_a_forward_proxy_only_that_is_tested() -> None:
    async with listening() as port:
        proxy = f"http://127.0.0.1:{port}"
        found = await findings("https://unknown.invalid", proxy=proxy)
    assert ids(found) == ["name_found", "connected"]
    assert found[-1].values["origin"] == proxy
