"""The page of the API: both languages, the groups that are served, and no active content."""

import re

import pytest

from proxy.api_docs.own_routes import OWN_ROUTES
from proxy.api_docs.page import Style, docs_page
from proxy.api_docs.relayed import relayed_paths

STYLE = Style("body { color: red }")
ALL = {route.group for route in OWN_ROUTES}
HAN = re.compile(r"[\u4e00-\u9fff]")


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_every_route_is_listed_in_each_language(lang: str) -> None:
    page = docs_page(lang, ALL, STYLE)
    for route in OWN_ROUTES:
        assert f"<code>{route.path}</code>" in page
    for relayed in relayed_paths():
        assert relayed.template in page


def test_each_language_links_to_the_other() -> None:
    english, chinese = docs_page("en", ALL, STYLE), docs_page("zh", ALL, STYLE)
    assert 'href="/docs?lang=zh"' in english
    assert 'href="/docs?lang=en"' in chinese
    assert not HAN.search(english.replace("中文", ""))
    assert HAN.search(chinese)


def test_only_groups_that_are_served_are_listed() -> None:
    page = docs_page("en", {"operations"}, STYLE)
    assert "<code>/livez</code>" in page
    assert "/chat/dialogue" not in page
    assert "/status/events" not in page


def test_the_page_has_one_style_and_no_script() -> None:
    page = docs_page("en", ALL, STYLE)
    assert page.count("<style>") == 1
    assert STYLE.text in page
    assert "<script" not in page
    assert " style=" not in page
