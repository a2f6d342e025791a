"""Faults times calls: repairs cure faults or make them errors that clients show, and harm nothing.

`python -m tests.integration.fault_table` prints the table, with `--cells` every cell.
"""

from collections import Counter
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.integration.fault_table.faults import FAULTS
from tests.integration.fault_table.table import Cell, counts, run

KINDS = {"chat", "stream", "embeddings", "rerank", "speech", "transcription"}
BROKEN = {
    "cut inside the body",
    "cut after the body",
    "a stream where none was asked for, cut",
    "no answer",
}
"""Faults of the connection: the only errors with status 502 after which a retry is useful."""


def listed(cells: list[Cell]) -> str:
    return "\n".join(map(str, cells))


@pytest.mark.long
@pytest.mark.timeout(180)  # about 15 s of work
async def test_repairs_fix_or_report_faults_and_break_nothing(
    tmp_path: Path, subtests: pytest.Subtests
) -> None:
    with capture_logs():
        cells = await run(tmp_path)
    with subtests.test("there are more than 110 faults, and every kind of call"):
        assert len({cell.fault.name for cell in cells}) >= 110
        assert {cell.call.kind for cell in cells} == KINDS
        assert all(any(cell.fault is fault for cell in cells) for fault in FAULTS)
    with subtests.test("without a fault every client gets the same bytes with repairs"):
        sound = [cell for cell in cells if cell.fault.name in {"none", "pretty printed", "compressed"}]
        assert listed([cell for cell in sound if cell.verdict != "right"]) == ""
        # Releases of RAGFlow up to v0.24 need an index in the tool calls of whole answers.
        same = [cell for cell in sound if not (cell.call.tools and cell.call.kind == "chat")]
        assert listed([cell for cell in same if cell.changed]) == ""
    with subtests.test("no client does worse with repairs than without"):
        assert listed([cell for cell in cells if cell.is_worse]) == ""
    with subtests.test("every fault is cured, or an error that the client shows"):
        assert listed([cell for cell in cells if cell.after.kind == "wrong"]) == ""
    with subtests.test("after some text repairs make no client begin again"):
        late = [cell for cell in cells if "after words" in cell.fault.name]
        assert late
        assert listed([cell for cell in late if cell.after.retried and not cell.before.retried]) == ""
    with subtests.test("an answer that cannot be cured is not asked for again"):
        for cell in cells:
            if cell.after.retried and not cell.before.retried:
                assert cell.fault.name in BROKEN or "502" not in cell.after.shown, str(cell)
    with subtests.test("repairs cure hundreds of cells"):
        # The command prints the numbers; this guards against a table that tests nothing.
        verdicts = Counter(cell.verdict for cell in cells)
        assert verdicts["cured"] >= 400, "\n".join(counts(cells))
        assert sum(cell.before.kind == "wrong" for cell in cells) >= 500
