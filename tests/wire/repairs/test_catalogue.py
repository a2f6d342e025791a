"""Names: each repair says whom it is for, and sets hold known ones."""

import pytest

from proxy.wire.repairs import (
    DECODE_TOKEN_IDS,
    REPAIRS,
    SETS,
    Repairs,
    answers,
    chat_chunks,
    known_names,
    request,
    resolve,
)

# Done by the walk of the answer or of the stream itself.
ON_THE_WAY = {"utf8", "lf_newlines", "drop_event_lines", "vendor_errors", "true_errors", "tei_rerank"}
ON_THE_WAY.add("accept_missing_end")


@pytest.mark.parametrize("name", REPAIRS)
def test_every_repair_says_what_it_cures_and_for_whom(name: str) -> None:
    repair = REPAIRS[name]
    assert repair.name == name
    assert repair.cures.endswith(".")
    assert repair.clients
    assert repair.stages


def test_every_repair_of_a_stage_is_done_there() -> None:
    everything = resolve(REPAIRS)
    assert set(everything.request) == {*request._REPAIRS, DECODE_TOKEN_IDS}
    assert set(everything.answer) - ON_THE_WAY == set(answers._REPAIRS)
    assert set(everything.stream) - ON_THE_WAY == set(chat_chunks.CHUNK_REPAIRS)


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_what_it_names_in_fixed_order(name: str) -> None:
    repairs = resolve([name])
    assert set(repairs.names) == set(SETS[name])
    assert list(repairs.names) == [known for known in REPAIRS if known in SETS[name]]
    assert resolve(reversed(SETS[name])) == repairs


def test_sets_and_repairs_have_names_of_their_own() -> None:
    assert len(set(known_names())) == len(SETS) + len(REPAIRS)


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(KeyError, match="ragflows"):
        resolve(["ragflow", "ragflows"])


def test_nothing_named_is_falsy_and_what_is_named_can_be_a_key() -> None:
    assert not resolve([])
    assert resolve([]) == Repairs()
    assert resolve(["utf8"])
    assert {resolve(["dify", "utf8"]): 1}[resolve(["dify"])] == 1


def test_an_upstreams_and_a_callers_repairs_add_up() -> None:
    both = resolve(["drop_params"]) | resolve(["utf8"])
    assert both == resolve(["utf8", "drop_params"])
    assert both | both == both
