"""Packages that are imported lazily, or hidden from libraries that can do without them."""

import importlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.lean_imports import lazy_packages, without

NAME = "library_of_the_test"


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A library whose package `types` notes each run of its `__init__.py`."""
    types = tmp_path / NAME / "types"
    (types / "inner").mkdir(parents=True)
    (tmp_path / NAME / "__init__.py").write_text("runs = []\nfrom . import types\n")
    (types / "__init__.py").write_text(
        f"import sys, {NAME}\n{NAME}.runs.append('types')\n"
        "from .shape import Shape\nhas_late = hasattr(sys.modules[__name__], 'late')\n"
    )
    (types / "shape.py").write_text("class Shape: pass\n")
    (types / "inner" / "__init__.py").write_text(f"import {NAME}\n{NAME}.runs.append('inner')\nleaf = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == NAME]:
        del sys.modules[name]


@pytest.mark.usefixtures("library")
def test_a_lazy_package_runs_when_it_is_first_asked_for_a_name() -> None:
    with lazy_packages(f"{NAME}.types"):
        library = importlib.import_module(NAME)
    assert library.runs == []

    assert library.types.Shape.__name__ == "Shape"
    assert library.types.Shape is library.types.Shape
    assert not library.types.has_late  # it asks for this name itself while it runs
    assert library.runs == ["types"]


@pytest.mark.usefixtures("library")
def test_the_modules_of_a_lazy_package_can_be_imported_before_it_runs() -> None:
    with lazy_packages(f"{NAME}.types"):
        library = importlib.import_module(NAME)
        shape = importlib.import_module(f"{NAME}.types.shape")
        inner = importlib.import_module(f"{NAME}.types.inner")
    assert library.runs == []

    assert inner.leaf == 1
    assert library.runs == ["inner"]
    assert library.types.Shape is shape.Shape


def test_a_name_is_taken_from_its_module_without_the_package(library: Path) -> None:
    types = library / NAME / "types"
    with (types / "__init__.py").open("a") as package:
        package.write("from .short import Short as Short\n")
        package.write("from .long import (\n    Other as Other,\n    Long as Long,\n)\n")
        package.write("from .twice_a import Twice as Twice\nfrom .twice_b import Twice as Twice\n")
    (types / "short.py").write_text("class Short: pass\n")
    (types / "long.py").write_text("class Other: pass\nclass Long: pass\nclass Longer: pass\n")
    (types / "twice_a.py").write_text("Twice = 1\n")
    (types / "twice_b.py").write_text("Twice = 2\n")
    with lazy_packages(f"{NAME}.types"):
        lazy = importlib.import_module(NAME)

    assert lazy.types.Long.__module__ == f"{NAME}.types.long"
    assert lazy.types.Long is lazy.types.Long
    assert lazy.types.inner is sys.modules[f"{NAME}.types.inner"]
    assert lazy.runs == ["inner"]
    assert not {f"{NAME}.types.short", f"{NAME}.types.shape"} & {*sys.modules}
    assert lazy.types.Twice == 2
    assert lazy.runs == ["inner", "types"]
    assert lazy.types.Short.__module__ == f"{NAME}.types.short"


@pytest.mark.usefixtures("library")
def test_a_lazy_package_has_no_other_names_than_its_own() -> None:
    with lazy_packages(f"{NAME}.types"):
        library = importlib.import_module(NAME)

    assert not hasattr(library.types, "__wrapped__")
    assert library.runs == []
    with pytest.raises(AttributeError, match="missing"):
        _ = library.types.missing
    with pytest.raises(AttributeError, match="missing"):
        _ = library.types.missing


@pytest.mark.usefixtures("library")
def test_a_lazy_package_runs_once_for_all_threads() -> None:
    with lazy_packages(f"{NAME}.types"):
        library = importlib.import_module(NAME)
    barrier, found = threading.Barrier(8), list[type]()

    def ask() -> None:
        barrier.wait()
        found.append(library.types.Shape)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [library.types.Shape] * 8
    assert library.runs == ["types"]


@pytest.mark.usefixtures("library")
def test_a_package_is_lazy_only_if_the_block_imports_it() -> None:
    finders = [*sys.meta_path]
    with pytest.raises(ModuleNotFoundError), lazy_packages(f"{NAME}.types"):
        importlib.import_module(f"{NAME}.nothing")
    assert sys.meta_path == finders

    importlib.import_module(f"{NAME}.types.inner")
    assert sys.modules[NAME].runs == ["inner"]


@pytest.mark.usefixtures("library")
def test_a_star_import_runs_a_lazy_package() -> None:
    with lazy_packages(f"{NAME}.types"):
        library = importlib.import_module(NAME)
    names: dict[str, object] = {}

    exec(f"from {NAME}.types import *", names)  # noqa: S102 - only a module or `exec` can import a star

    assert names["Shape"] is library.types.Shape
    assert library.runs == ["types"]


@pytest.mark.usefixtures("library")
def test_a_hidden_package_cannot_be_imported_in_the_block() -> None:
    with without(NAME), pytest.raises(ModuleNotFoundError, match=NAME):
        importlib.import_module(NAME)

    importlib.import_module(NAME)


@pytest.mark.usefixtures("library")
def test_a_package_that_is_imported_already_is_not_hidden() -> None:
    library = importlib.import_module(NAME)

    with without(NAME):
        assert importlib.import_module(NAME) is library

    assert sys.modules[NAME] is library


@pytest.mark.usefixtures("library")
def test_blocks_that_overlap_in_two_threads_leave_the_package_as_it_is() -> None:
    both = threading.Barrier(2)
    failures = list[BaseException]()

    def hide() -> None:
        try:
            with without(NAME):
                both.wait()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=hide) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    importlib.import_module(NAME)
