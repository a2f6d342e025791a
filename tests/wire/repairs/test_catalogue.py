"""The catalogue: all repairs of all modules, each with a description and clients; sets of known repairs."""

import importlib
import pkgutil
from types import ModuleType

import pytest

from proxy.wire import repairs as package
from proxy.wire.endpoints import Shape
from proxy.wire.repairs import REPAIRS, SETS, Repair, Repairs, known_names, resolve
from proxy.wire.repairs.repair import Step, find_steps

MODULES = [
    importlib.import_module(f"{package.__name__}.{module.name}")
    for module in pkgutil.iter_modules(package.__path__)
]


DECLARING = [module for module in MODULES if "REPAIRS" in vars(module) and "resolve" not in vars(module)]


def test_every_repair_of_every_module_is_in_the_catalogue() -> None:
    declared = {value for module in MODULES for value in vars(module).values() if isinstance(value, Repair)}
    assert declared == {*REPAIRS.values()} == {repair for module in DECLARING for repair in module.REPAIRS}


def test_every_decorated_function_belongs_to_one_repair() -> None:
    decorated = {value for module in MODULES for value in vars(module).values() if isinstance(value, Step)}
    used = [step for repair in REPAIRS.values() for step in repair.steps]
    assert decorated == {*used}
    assert len(used) == len(decorated)


@pytest.mark.parametrize("module", DECLARING, ids=lambda module: module.__name__.rpartition(".")[2])
def test_the_repairs_of_a_module_run_in_the_order_of_their_declaration(module: ModuleType) -> None:
    enabled = resolve(repair.name for repair in module.REPAIRS).enabled
    assert enabled == module.REPAIRS
    assert enabled == tuple(value for value in vars(module).values() if value in module.REPAIRS)


@pytest.mark.parametrize("name", REPAIRS)
def test_every_repair_describes_its_faults_and_clients(name: str) -> None:
    repair = REPAIRS[name]
    assert repair.name == name
    assert repair.cures.endswith(".")
    assert repair.clients
    assert repair.stages
    assert repair.sets <= SETS.keys()


@pytest.mark.parametrize("name", SETS)
def test_a_set_contains_the_repairs_that_name_it(name: str) -> None:
    repairs = resolve([name])
    assert tuple(sorted(repair.name for repair in repairs.enabled)) == SETS[name]
    assert resolve(reversed(SETS[name])) == repairs
    assert all(name in REPAIRS[each].sets for each in SETS[name])


def test_sets_and_repairs_have_unique_names() -> None:
    assert len(set(known_names())) == len(SETS) + len(REPAIRS)


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(KeyError, match="ragflows"):
        resolve(["ragflow", "ragflows"])


def test_no_names_are_no_repairs() -> None:
    assert resolve([]) == Repairs()
    assert resolve(["dify", "utf8"]) == resolve(["dify"])


def test_the_shapes_of_embeddings_are_converted_before_they_are_sorted_and_counted() -> None:
    repairs = resolve(["fill_usage", "sort_embeddings", "drop_params", "embedding_shapes"])
    found = find_steps(repairs, "response", Shape.EMBEDDINGS)
    names = [step.change.__name__ for step in found]
    assert names == ["embedding_shapes", "sort_embeddings", "fill_embedding_usage"]
