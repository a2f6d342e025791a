"""A release: reproducible, with a bill of materials, and with licences that we may use."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from proxy import __version__
from tests.release.__main__ import SUMS, build
from tests.release.packages import LIST, Package, is_allowed, licence_list, licence_of, locked
from tests.release.sbom import OURS, bill_of_materials


def test_the_same_commit_gives_the_same_bytes(tmp_path: Path) -> None:
    mask = os.umask(0o077)
    try:
        first = build(tmp_path / "first")
        os.umask(0o022)
        second = build(tmp_path / "second")
    finally:
        os.umask(mask)
    assert [file.name for file in first] == [
        f"llm_token_proxy-{__version__}-py3-none-any.whl",
        f"llm_token_proxy-{__version__}.tar.gz",
        f"llm_token_proxy-{__version__}.cdx.json",
        SUMS,
    ]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name
    for line in first[-1].read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((tmp_path / "first" / name).read_bytes()).hexdigest() == digest


def test_the_list_of_licences_is_that_of_the_lock_file() -> None:
    assert LIST.read_text() == licence_list()  # otherwise run python -m tests.release --licences


def test_every_licence_is_allowed() -> None:
    assert len(locked()) > 40
    assert [(p.name, licence_of(p)) for p in locked() if not is_allowed(licence_of(p))] == []


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("Apache-2.0 AND MIT", True),
        ("GPL-3.0-only OR MIT", True),
        ("GPL-3.0-only", False),
        ("MIT AND LGPL-2.1-or-later", False),
        ("UNKNOWN", False),
    ],
)
def test_an_expression_is_allowed_if_one_choice_is(expression: str, allowed: bool) -> None:  # noqa: FBT001
    assert is_allowed(expression) is allowed


def test_a_package_without_a_known_licence_is_reported() -> None:
    with pytest.raises(LookupError, match="BY_HAND"):
        licence_of(Package("no-such-package", "1", None, ()))


def test_the_bill_of_materials_has_every_package_and_who_needs_it() -> None:
    bill = json.loads(bill_of_materials(1_700_000_000))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["timestamp"] == "2023-11-14T22:13:20+00:00"
    urls = [component["purl"] for component in bill["components"]]
    assert urls == [package.url for package in locked()]
    assert len({*urls}) == len(urls)
    needs = {entry["ref"]: entry["dependsOn"] for entry in bill["dependencies"]}
    assert {*needs} == {OURS, *urls}
    assert any(url.startswith("pkg:pypi/quart@") for url in needs[OURS])
    reached = {url for needed in needs.values() for url in needed}
    assert reached == {*urls}
