"""Which stored entry makes room: the oldest one of the visitor who uses most."""

from proxy.chat.shares import Shares


def filled(*entries: tuple[str, int, str]) -> Shares:
    shares = Shares()
    for entry in entries:
        shares.add(*entry)
    return shares


def test_the_oldest_entry_of_the_heaviest_visitor_is_chosen() -> None:
    shares = filled(("a", 5, "one"), ("b", 4, "two"), ("c", 4, "two"))
    assert shares.choose("abc", spared="a") == "b"
    shares.remove("b", 4)
    assert shares.choose("ac", spared="c") == "a"


def test_an_entry_counts_to_its_first_visitor() -> None:
    shares = filled(("a", 1, "one"), ("b", 2, "two"), ("a", 5, "three"))
    assert shares.choose("ab", spared="") == "a"
    shares.remove("a", 6)
    assert shares.choose("b", spared="") == "b"


def test_if_the_heaviest_visitor_has_only_the_entry_in_use_the_oldest_makes_room() -> None:
    shares = filled(("a", 1, "one"), ("b", 1, "two"), ("c", 9, "three"))
    assert shares.choose("abc", spared="c") == "a"
    assert filled(("c", 9, "three")).choose("c", spared="c") is None
