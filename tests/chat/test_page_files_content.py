"""The files of the page: nothing inline, external or missing, and colours with sufficient contrast."""

import re
from importlib import resources

import pytest

from proxy.chat import notices
from proxy.chat.page_files import read_page_files
from tests.chat.test_code_colours_styles import contrast

FILES = {name: file.body.decode() for name, file in read_page_files().items() if not name.endswith(".woff2")}
SCRIPTS = sorted(name for name in FILES if name.endswith(".js"))
TEXTS = ("ink", "quiet", "accent", "wait", "wrong", "fine")
PAPERS = ("paper", "raised", "tint", "code-paper", "wrong-paper", "wait-paper")


def tokens(block: str) -> dict[str, str]:
    """Return the colours that a block of the style sheet sets."""
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))


def palettes() -> dict[str, dict[str, str]]:
    """Light, dark by the system, dark by choice."""
    style = FILES["tokens.css"]
    light, _, rest = style.partition("@media (prefers-color-scheme: dark)")
    system, _, chosen = rest.partition(':root[data-theme="dark"]')
    return {"light": tokens(light), "system": tokens(system), "chosen": tokens(chosen)}


def test_both_dark_themes_have_the_same_colours() -> None:
    found = palettes()
    assert found["system"] == found["chosen"]
    assert found["system"].keys() == found["light"].keys()


@pytest.mark.parametrize("palette", ["light", "chosen"])
def test_text_has_a_contrast_of_7_and_controls_of_4_5(palette: str) -> None:
    colours = palettes()[palette]
    for paper in PAPERS:
        for text in TEXTS:
            assert contrast(colours[text], colours[paper]) >= 7, f"{text} on {paper}"
    for token in ("keyword", "string", "comment", "number", "name", "error"):
        assert contrast(colours[f"code-{token}"], colours["code-paper"]) >= 7, token
    for button in ("accent", "accent-strong"):
        assert contrast(colours["on-accent"], colours[button]) >= 7
    for paper in ("paper", "raised"):
        assert contrast(colours["control"], colours[paper]) >= 4.5


def test_the_page_has_no_inline_script_no_style_and_no_foreign_address() -> None:
    page = FILES["index.html"]
    assert re.findall(r"<script(?![^>]* src=)", page) == []
    assert re.findall(r"<style|\sstyle=|\son\w+=", page) == []
    for name, text in FILES.items():
        found = set(re.findall(r"(?:https?:)?//[\w.-]+\.[a-z]{2,}[^\s\"')]*", text))
        assert found <= {
            "http://www.w3.org/2000/svg",
            "http://www.w3.org/1999/xhtml",
            "http://www.w3.org/1998/Math/MathML",
        }, name


def test_every_script_has_a_comment_and_imports_existing_files() -> None:
    for name in SCRIPTS:
        text = FILES[name]
        assert text.startswith("//"), name
        assert "innerHTML" not in text, name
        assert "eval(" not in text, name
        wanted = re.findall(r'(?:from|import) "\./([^"]+)"', text) + re.findall(r'"([\w.]+\.css)"', text)
        assert {file.removeprefix("page/") for file in wanted} <= {*FILES}, name


def test_the_page_asks_for_all_its_scripts_at_once() -> None:
    wanted, reached = ["page.js"], {"page.js"}
    while wanted:
        for name in re.findall(r'(?:from|import) "\./([^"]+)"', FILES[wanted.pop()]):
            if name not in reached:
                reached.add(name)
                wanted.append(name)
    preloaded = re.findall(r'modulepreload" href="page/([^"]+)"', FILES["index.html"])
    assert preloaded == sorted(reached - {"page.js"})


def test_every_phrase_of_the_interface_is_translated_and_used() -> None:
    table = re.findall(r"^  (\w+): \[\"(.*)\", \"(.*)\"\],$", FILES["words.js"], re.MULTILINE)
    assert len(table) > 50
    others = "".join(text for name, text in FILES.items() if name != "words.js")
    codes = {notice.code: notice for notice in vars(notices).values() if isinstance(notice, notices.Notice)}
    assert codes.keys() <= {key for key, _, _ in table}
    for key, chinese, english in table:
        assert ("{n}" in chinese) == ("{n}" in english), key
        if key in codes:
            assert ("{n}" in chinese) == ("{n}" in codes[key].words[0]), key
            continue
        assert f'"{key}"' in others or f": {key}" in others, f"nobody says {key}"


def test_every_file_of_the_folder_is_served() -> None:
    folder = resources.files("proxy.chat") / "page"
    assert {entry.name for entry in folder.iterdir()} == {*FILES, "fonts"}
    assert "fonts/math.woff2" in read_page_files()
