"""The Chinese output of `recipe`: each phrase of the table, and the failures of connections."""

import httpx2
import pytest

from proxy.recipe.phrases import CHINESE, in_chinese, language_of, translator
from proxy.transport_failure import explain


@pytest.mark.parametrize(
    ("environ", "language"),
    [
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "en_US.UTF-8"}, "en"),
        ({"LC_ALL": "", "LANG": "zh_TW"}, "zh"),
        ({"LANG": "de_DE"}, "en"),
        ({}, "en"),
    ],
)
def test_the_language_is_that_of_the_locale(environ: dict[str, str], language: str) -> None:
    assert language_of(environ) == language


def test_every_phrase_has_as_many_placeholders_as_its_translation() -> None:
    assert [phrase for phrase, chinese in CHINESE.items() if phrase.count("{}") != chinese.count("{}")] == []


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        ("the endpoint answered 500", "接口返回 500"),
        ("unsure: is a JWT", "不确定：是 JWT"),
        ('it is named "token" and is long (40 characters)', "它叫“token”，并且较长（40 个字符）"),
        ("a sentence that no table contains", "a sentence that no table contains"),
        ("the endpoint answered 500\n", "the endpoint answered 500\n"),
    ],
)
def test_names_and_phrases_in_a_phrase_are_translated_too(english: str, chinese: str) -> None:
    assert in_chinese(english) == chinese
    assert translator("zh")(english) == chinese
    assert translator("en")(english) == english


def test_a_failed_connection_is_explained_in_chinese_in_the_words_of_one_table() -> None:
    failure = httpx2.ConnectError("refused")
    failure.__cause__ = ConnectionRefusedError()
    reason = str(explain(failure, "https://auth.corp.example/token"))
    assert in_chinese(f"the token endpoint {reason}") == (
        "令牌接口 https://auth.corp.example:443：连接被拒绝；请检查主机和端口，并确认服务在运行"
    )
