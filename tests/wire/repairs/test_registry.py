"""The registry: each repair has a description and clients, and sets contain known repairs."""

import pytest

from proxy.wire.endpoints import Shape
from proxy.wire.repairs import REPAIRS, SETS, Repair, Repairs, known_names, resolve
from proxy.wire.repairs.registry import find_steps


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
    assert repairs.names == SETS[name]
    assert resolve(reversed(SETS[name])) == repairs
    assert all(name in REPAIRS[each].sets for each in SETS[name])


def test_sets_and_repairs_have_unique_names() -> None:
    assert len(set(known_names())) == len(SETS) + len(REPAIRS)


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(KeyError, match="ragflows"):
        resolve(["ragflow", "ragflows"])


def test_repairs_are_falsy_if_empty_and_hashable() -> None:
    assert not resolve([])
    assert resolve([]) == Repairs()
    assert resolve(["utf8"])
    assert {resolve(["dify", "utf8"]): 1}[resolve(["dify"])] == 1


def test_only_repairs_of_requests_leave_responses_alone() -> None:
    assert not resolve(["drop_params", "fill_history"]).change_responses
    assert resolve(["drop_params", "utf8"]).change_responses


def test_steps_are_those_of_the_repairs_that_are_on_for_one_shape() -> None:
    repairs = resolve(["fill_usage", "sort_embeddings", "drop_params"])
    names = [step.repair for step in find_steps(repairs, "response", Shape.EMBEDDINGS)]
    assert names == ["sort_embeddings", "fill_usage"]  # In the order of their declaration.
    assert find_steps(repairs, "response", None) == ()
    assert find_steps(Repairs(), "response", Shape.EMBEDDINGS) == ()


def test_every_step_belongs_to_a_repair_that_looks_at_its_stage() -> None:
    for stage in ("request", "response", "stream"):
        for shape in Shape:
            for step in find_steps(resolve(REPAIRS), stage, shape):
                repair: Repair = REPAIRS[step.repair]
                assert stage in repair.stages
