"""From a TOML file and the environment to checked settings, or to the list of all that is wrong with them."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from proxy.errors import SettingsError
from proxy.settings.environment import apply_overrides
from proxy.settings.interpolation import Interpolation
from proxy.settings.locations import KeyPath, Place, key_lines
from proxy.settings.models import Settings
from proxy.settings.problems import Problem, report
from proxy.settings.references import check_references, with_routes
from proxy.settings.translation import problems_of

_CURLY_QUOTES = "\u201c\u201d\u2018\u2019\uff02"
_MEANINGS = {
    "Illegal character": "a quote is not closed on this line",
    "Unterminated string": "a quote is not closed",
    "Expected '\"": "a quote is not closed",
    "Expected \"'": "a quote is not closed",
    "Unclosed array": "its ] is missing",
    "Unclosed inline table": "its } is missing, or it continues on another line, which TOML forbids",
    "Expected ']'": "the ] of a section's header is missing",
    "Expected newline": "a line holds one key and one value, and text needs quotes around it",
    "Invalid value": "text needs quotes around it, and true and false are written in small letters",
    "Invalid statement": "a line is a [section], a key = value, or a # comment",
    "Expected '=' after a key": "a key needs = and a value",
    "Cannot declare": "the section is there twice",
    "Cannot overwrite a value": "the key is there twice",
    "Unescaped '\\'": "write a backslash twice, or use single quotes, as for paths of Windows",
    "Invalid hex value": "write a backslash twice, or use single quotes, as for paths of Windows",
}
"""What tomllib says, and what to look for."""
_SYNTAX_ERROR = re.compile(r"(?P<words>.*) \(at (?:line (?P<line>\d+), column \d+|end of document)\)")


def load_settings(path: Path, environ: Mapping[str, str]) -> Settings:
    """Read a TOML file, lay `PROXY__SECTION__KEY` over it, resolve `${env:}` and `${file:}`, check it all.

    Args:
        path: The file; its folder is what relative paths in it start from.
        environ: The environment, `os.environ` as a rule.

    Raises:
        SettingsError: One line a problem, all of them at once, each with its place and key.
    """
    text = _read(path)
    tree, lines = _parse(path, text)
    places: dict[KeyPath, Place] = {
        (): Place(str(path)),
        **{key: Place(str(path), line) for key, line in lines.items()},
    }
    problems = apply_overrides(tree, places, environ)
    settings = _settings(tree, Interpolation(environ, path.parent), problems)
    if problems or settings is None:
        raise SettingsError(*report(problems, places))
    return settings


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise SettingsError(
            f"{path}: cannot be read: {error.strerror}; name the settings file with --config FILE or in "
            "PROXY_CONFIG"
        ) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise SettingsError(f"{path}:{line}: is not valid UTF-8") from None


def _parse(path: Path, text: str) -> tuple[dict[str, object], dict[KeyPath, int]]:
    try:
        return tomllib.loads(text), key_lines(text)
    except tomllib.TOMLDecodeError as error:
        match = _SYNTAX_ERROR.fullmatch(str(error))
        words = match["words"] if match else str(error)
        line = int(match["line"]) if match and match["line"] else text.count("\n") + 1
        meaning = _meaning(words, text.split("\n")[line - 1])
        raise SettingsError(f"{path}:{line}: not valid TOML: {words}{meaning}") from None
    except RecursionError:
        raise SettingsError(f"{path}: not valid TOML: nested too deeply") from None


def _meaning(words: str, line: str) -> str:
    """What a complaint of tomllib most often means."""
    if any(quote in line for quote in _CURLY_QUOTES):
        return ": these are curly quotes; write straight ones, \" or '"
    return next((f": {meaning}" for start, meaning in _MEANINGS.items() if words.startswith(start)), "")


def _settings(
    tree: dict[str, object], interpolation: Interpolation, problems: list[Problem]
) -> Settings | None:
    """Build the settings, or add to the problems."""
    written = {key: interpolation.tree(value, (key,)) for key, value in tree.items()}
    expanded = {"access": {}, "upstreams": {}, **written}  # their absence is told by what they lack
    found = [*check_references(expanded)]
    try:
        context = {"folder": interpolation.folder, "environ": interpolation.environ}
        settings = Settings.model_validate(with_routes(expanded), context=context)
    except ValidationError as error:
        settings = None
        found += problems_of(error)
    # A value that could not be expanded is told once, and not judged by what stands in its place.
    unresolved = {problem.path for problem in interpolation.problems}
    problems += interpolation.problems
    problems += [problem for problem in found if problem.path not in unresolved]
    return settings
