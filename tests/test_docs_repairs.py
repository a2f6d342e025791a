"""The pages about repairs: they list every repair with its clients."""

import pytest

from proxy.wire.repairs import REPAIRS, SETS, resolve
from tests.documents import CODE, DOCUMENTS, rows

PAGES = ("docs/repairs.md", "docs/repairs.zh-CN.md")


@pytest.mark.parametrize("page", PAGES)
def test_every_set_and_every_repair_has_its_row(page: str) -> None:
    table = {row[0].strip("`"): row for row in rows(DOCUMENTS[page])}
    assert [*table] == [*SETS, *REPAIRS]
    for name in SETS:
        assert resolve(CODE.findall(table[name][1])) == resolve([name])
    for name, repair in REPAIRS.items():
        assert table[name][2] == "; ".join(repair.clients)
        assert len(table[name][3].replace("、", ", ").split(", ")) == len(repair.stages)


def test_the_english_page_matches_the_catalogue() -> None:
    table = {row[0].strip("`"): row for row in rows(DOCUMENTS["docs/repairs.md"])}
    assert {name: table[name][1] for name in REPAIRS} == {name: one.cures for name, one in REPAIRS.items()}
