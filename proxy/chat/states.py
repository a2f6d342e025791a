"""The states of a dialogue, which are events of its channel (pure)."""

from typing import Final, Literal

from proxy.chat.event import Event

MESSAGE: Final = "message_event"
"""The event type of a question and of each piece of its answer, which the article's page listens to."""
STATE: Final = "state_event"
"""The event type of a change of state."""

DialogueState = Literal[
    "waiting", "thinking", "answering", "done", "stopped", "failed", "regenerating", "reset"
]
_ENDS: Final = frozenset({"done", "stopped", "failed", "reset"})


def is_unfinished(event: Event, *, before: bool) -> bool:
    """Return whether a dialogue is unfinished after an event of this service.

    A message counts, too: the process may die after the question and before the first state.

    Args:
        before: Whether a dialogue was unfinished before it.
    """
    if event.type == MESSAGE:
        return True
    if event.type != STATE or not isinstance(event.data, dict):
        return before
    state = event.data.get("state")
    return not isinstance(state, str) or state not in _ENDS


def replaces_answer(event: Event) -> bool:
    """Return whether an event announces another answer to the last question, which replaces the first."""
    return event.type == STATE and isinstance(event.data, dict) and event.data.get("state") == "regenerating"
