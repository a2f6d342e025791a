"""Repairs of embedding answers."""

import msgspec

from proxy.wire.repairs.shallow_json import Members, open_list, open_object, read_value, write


def sort_embeddings(answer: Members) -> Members | None:
    """The items in the order of their index, each with one; None where they are so already.

    Indexes that are absent, or not all different, tell no order: then the place in the list is the index.
    """
    items = [open_object(item) for item in open_list(answer.get("data")) or ()]
    found = [item for item in items if item is not None]
    if len(found) != len(items):
        return None  # not a list of objects
    indexes = [_index(item) for item in found]
    given = {index for index in indexes if index is not None}
    if len(given) != len(found):
        filled = [{**item, "index": write(place)} for place, item in enumerate(found)]
        return {**answer, "data": write(filled)}
    order = sorted(range(len(found)), key=lambda place: indexes[place] or 0)
    if order == [*range(len(found))]:
        return None
    return {**answer, "data": write([found[place] for place in order])}


def _index(item: Members) -> int | None:
    index = read_value(item.get("index", msgspec.Raw(b"null")))
    return index if isinstance(index, int) and not isinstance(index, bool) else None
