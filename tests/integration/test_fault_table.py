"""Faults times calls: repairs cure faults or make them errors that clients show, and harm nothing.

`python -m tests.integration.fault_table` prints the table, with `--cells` every cell.
"""

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.integration.fault_table.faults import FAULTS
from tests.integration.fault_table.table import Cell, counts, run

pytestmark = pytest.mark.timeout(180)  # about 15 s of work, once for all tests here
KINDS = {"chat", "stream", "embeddings", "rerank", "speech", "transcription"}


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[Cell]:
    """Every cell of the table."""
    folder: Path = tmp_path_factory.mktemp("table")
    with capture_logs():
        return asyncio.run(run(folder))


def listed(cells: list[Cell]) -> str:
    return "\n".join(map(str, cells))


def test_the_table_has_more_than_110_faults_and_every_kind_of_call(cells: list[Cell]) -> None:
    assert len({cell.fault.name for cell in cells}) >= 110
    assert {cell.call.kind for cell in cells} == KINDS
    assert all(any(cell.fault is fault for cell in cells) for fault in FAULTS)


def test_without_a_fault_every_client_gets_the_same_bytes_with_repairs(cells: list[Cell]) -> None:
    sound = [cell for cell in cells if cell.fault.name in {"none", "pretty printed", "compressed"}]
    assert listed([cell for cell in sound if cell.verdict != "right"]) == ""
    # Releases of RAGFlow up to v0.24 need an index in the tool calls of whole answers.
    same = [cell for cell in sound if not (cell.call.tools and cell.call.kind == "chat")]
    assert listed([cell for cell in same if cell.changed]) == ""


def test_no_client_does_worse_with_repairs_than_without(cells: list[Cell]) -> None:
    assert listed([cell for cell in cells if cell.is_worse]) == ""


def test_every_fault_is_cured_or_an_error_that_the_client_shows(cells: list[Cell]) -> None:
    assert listed([cell for cell in cells if cell.after.kind == "wrong"]) == ""


def test_after_some_text_repairs_make_no_client_begin_again(cells: list[Cell]) -> None:
    late = [cell for cell in cells if "after words" in cell.fault.name]
    assert late
    assert listed([cell for cell in late if cell.after.retried and not cell.before.retried]) == ""


def test_an_answer_that_cannot_be_cured_is_not_asked_for_again(cells: list[Cell]) -> None:
    """Of the errors with status 502, only a connection that broke is worth another try."""
    broken = {
        "cut inside the body",
        "cut after the body",
        "a stream where none was asked for, cut",
        "no answer",
    }
    retried = [cell for cell in cells if cell.after.retried and not cell.before.retried]
    for cell in retried:
        assert cell.fault.name in broken or "502" not in cell.after.shown, str(cell)


def test_repairs_cure_hundreds_of_cells(cells: list[Cell]) -> None:
    """The numbers themselves are printed by the command; this guards against a table that tests nothing."""
    verdicts = Counter(cell.verdict for cell in cells)
    assert verdicts["cured"] >= 400, "\n".join(counts(cells))
    assert sum(cell.before.kind == "wrong" for cell in cells) >= 500
