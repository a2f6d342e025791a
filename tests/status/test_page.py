"""The parts of the page: their text in both languages, without active content."""

from msgspec.structs import replace

from proxy.status.overview import merge
from proxy.status.page import page, parts, sign_in_page
from proxy.status.words import CHINESE, ENGLISH
from tests.browser.scripted_status import EMPTY, ERRORS, STATES, problem, token, traffic, upstream
from tests.status.test_words import NO_BREAK


def test_a_token_is_described_by_its_remaining_lifetime() -> None:
    def told(*tokens: object) -> str:
        report = replace(EMPTY, credentials=[*tokens])
        return parts(merge([report], 1), ENGLISH, 0.0)["credentials"].replace(NO_BREAK, " ")

    assert "4 min 38 s left of 5 min · refreshed in 3 min 12 s" in told(token("corp", "fresh", 12))
    assert "refresh is due" in told(token("corp", "stale", 250))
    assert "no token can be sent" in told(token("corp", "expired", 295))
    assert "no token can be sent · next attempt in 44 s" in told(token("corp", "empty", 0, backoff=44.0))
    assert "does not expire" in told(token("corp", "fresh", 12, float("inf")))


def test_each_part_is_in_both_languages_and_has_no_inline_script_or_style() -> None:
    for report in (*STATES.values(), ERRORS):
        english, chinese = (parts(merge([report], 1), words, 0.0) for words in (ENGLISH, CHINESE))
        assert [*english] == [*chinese]
        for html in (*english.values(), *chinese.values()):
            assert "<script" not in html
            assert " style=" not in html
            assert "\n" not in html


def test_upstreams_without_a_breaker_are_marked() -> None:
    overview = merge([replace(EMPTY, upstreams=[upstream("chat", None)])], 1)
    assert "No circuit breaker" in parts(overview, ENGLISH, 0.0)["upstreams"]


def test_names_and_reasons_are_escaped() -> None:
    hostile = "<img src=x onerror=alert(1)>"
    failed = replace(problem(1, "failed", "upstream_error", 502, hostile), caller=hostile)
    report = replace(EMPTY, traffic=traffic({}, {}, {}, failed))
    html = "".join(parts(merge([report], 1), ENGLISH, 0.0).values())
    assert "<img" not in html
    assert html.count("&lt;img") == 2


def test_the_page_links_to_the_other_language() -> None:
    content = parts(merge([EMPTY], 1), ENGLISH, 0.0)
    assert 'href="/status?lang=zh"' in page(content, ENGLISH)
    assert 'href="/status?lang=en"' in page(content, CHINESE)


def test_only_a_wrong_key_is_an_alert() -> None:
    assert 'role="alert"' not in sign_in_page(ENGLISH, rejected=False)
    assert f"{ENGLISH.wrong_key}</p>" in sign_in_page(ENGLISH, rejected=True)
