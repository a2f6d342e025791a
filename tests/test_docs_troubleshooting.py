"""docs/troubleshooting*.md: the session is real, and every finding is named."""

import asyncio
from typing import Final

import pytest

from proxy.cli import main
from proxy.cli.doctor.catalogue import CATALOGUE
from proxy.cli.doctor.findings import Level
from tests.conftest import RunningGateway, RunProxy
from tests.documents import CODE, DOCUMENTS, fences, in_both_languages, rows

PAGES: Final = in_both_languages("docs/troubleshooting")
ORIGIN: Final = "http://127.0.0.1:5002"

each_page = pytest.mark.parametrize("page", PAGES)


@each_page
def test_every_finding_is_in_a_table(page: str) -> None:
    codes = {code for row in rows(DOCUMENTS[page]) for cell in row[:2] for code in CODE.findall(cell)}
    named = {code for code in codes if code in CATALOGUE}

    assert named == {name for name, entry in CATALOGUE.items() if entry.level is not Level.OK}


@each_page
async def test_the_session_is_a_real_one(
    page: str,
    run_proxy: RunProxy,
    gateway: RunningGateway,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (session,) = fences(DOCUMENTS[page], "console")
    command, _, shown = session.partition("\n")
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8" if "zh" in page else "C.UTF-8")
    async with run_proxy(gateway.url) as proxy:
        arguments = command.replace(ORIGIN, proxy.url).removeprefix("$ .venv/bin/python -m proxy ").split()
        assert await asyncio.to_thread(main, arguments) == 1

        assert capsys.readouterr().out == shown.replace(ORIGIN, proxy.url)
