"""The states of a dialogue: which events begin one, and which end it."""

import pytest

from proxy.chat.event import Event
from proxy.chat.states import MESSAGE, STATE, is_unfinished


@pytest.mark.parametrize(
    ("state", "unfinished"),
    [
        ("waiting", True),
        ("thinking", True),
        ("answering", True),
        ("regenerating", True),
        ("done", False),
        ("stopped", False),
        ("failed", False),
        ("reset", False),
    ],
)
@pytest.mark.parametrize("before", [True, False])
def test_a_state_event_decides_regardless_of_earlier_events(
    state: str, *, unfinished: bool, before: bool
) -> None:
    assert is_unfinished(Event({"state": state}, STATE), before=before) is unfinished


@pytest.mark.parametrize("before", [True, False])
def test_a_message_belongs_to_a_dialogue_that_has_yet_to_end(*, before: bool) -> None:
    assert is_unfinished(Event({"message": "<div></div>"}, MESSAGE), before=before)


@pytest.mark.parametrize("event", [Event({"state": "done"}, "other_event"), Event("done", STATE)])
@pytest.mark.parametrize("before", [True, False])
def test_other_events_change_nothing(event: Event, *, before: bool) -> None:
    assert is_unfinished(event, before=before) is before
