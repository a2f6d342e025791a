"""The packages that the program depends on, by the lock file, with their licences."""

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
LOCK: Final = ROOT / "requirements.lock"
LIST: Final = ROOT / "requirements-licences.txt"
HEAD: Final = (
    "# The licences of the locked packages. `python -m tests.release --licences` writes this file.\n"
)

ALLOWED: Final = {"0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "PSF-2.0"}
"""Licences that require no more than their text and a notice."""
EXPRESSIONS: Final = {
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
    "Python Software Foundation License": "PSF-2.0",
}
"""SPDX expressions of older names."""
BY_HAND: Final = {"aiocache": "BSD-3-Clause", "async-timeout": "Apache-2.0"}
"""Of packages whose metadata names none, or that this Python does not need."""

_PACKAGE: Final = re.compile(
    r"^(?P<name>[a-z0-9][\w.-]*)==(?P<version>\S+)(?: ; (?P<marker>[^\\\n]*?))? \\\n(?P<rest>(?: +.*\n)*)",
    re.MULTILINE,
)
_VIA: Final = re.compile(r"^ +# (?:via)? *([\w.-]+)", re.MULTILINE)
_WITHOUT_PYTHON: Final = "sys_platform == 'emscripten'"


class Package(NamedTuple):
    """One version in the lock file."""

    name: str
    version: str
    marker: str | None
    """The condition for its installation; None for always."""
    dependencies_of: tuple[str, ...]
    """The packages that depend on it, and `llm-token-proxy` itself."""

    @property
    def url(self) -> str:
        """The package URL."""
        return f"pkg:pypi/{self.name}@{self.version}"


def locked() -> list[Package]:
    """Return the packages of the lock file, without those for browsers."""
    return [*_parse(LOCK.read_text())]


def _parse(lock: str) -> Iterator[Package]:
    for found in _PACKAGE.finditer(lock):
        marker = found["marker"]
        if marker is None or _WITHOUT_PYTHON not in marker:
            dependencies_of = tuple(name for name in _VIA.findall(found["rest"]) if name != "via")
            yield Package(found["name"], found["version"], marker, dependencies_of)


def licence_of(package: Package) -> str:
    """Return the licence of a package as an SPDX expression.

    Raises:
        LookupError: it is not known; add it to `BY_HAND`.
    """
    if package.name in BY_HAND:
        return BY_HAND[package.name]
    try:
        named = metadata(package.name)
    except PackageNotFoundError as error:
        raise LookupError(f"{package.name} is not installed: add its licence to BY_HAND") from error
    for expression in named.get_all("License-Expression") or ():
        return str(expression)
    for line in named.get_all("License") or ():
        if line.strip() and "\n" not in line:
            return EXPRESSIONS.get(line, str(line))
    classifiers = [item.rpartition(" :: ")[2] for item in named.get_all("Classifier") or ()]
    licences = {EXPRESSIONS[name] for name in classifiers if name in EXPRESSIONS}
    if not licences:
        raise LookupError(f"{package.name} names no licence: add it to BY_HAND")
    return " AND ".join(sorted(licences))


def is_allowed(expression: str) -> bool:
    """Whether an SPDX expression of `AND` and `OR` is satisfied by allowed licences."""
    return any(
        all(part.strip() in ALLOWED for part in choice.split(" AND "))
        for choice in expression.strip("()").split(" OR ")
    )


def licence_list() -> str:
    """Return the text of `requirements-licences.txt`."""
    return HEAD + "".join(f"{p.name} {p.version}: {licence_of(p)}\n" for p in locked())
