"""Rules for the whole code base, one test each. The import contracts are in pyproject.toml."""

import ast
import functools
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final, cast

import pytest
from importlinter import cli as import_linter

import proxy

PACKAGE: Final = Path(proxy.__file__).parent
ROOT: Final = PACKAGE.parent
OWN_THEIR_TASKS: Final = {
    "proxy/server/serve.py": 2,
    "proxy/shared_tasks.py": 1,
    "proxy/upstream/connections.py": 1,
}
"""How many tasks start outside a task group.

A shared fetch outlives its callers, and `OwnedTasks.close` ends it. A server ends its requests one by one in
`Server.abort`, and its lifespan task in a `finally`. An upload, which continues while its response is read,
ends with its connection.
"""

TASK_GROUPS: Final = {"asyncio.TaskGroup()", "asyncio.TaskGroup", "task_group()"}
ENTERED: Final = re.compile(r"await [\w.]+\.enter_async_context\((.*)\)")

WITHOUT_EFFECT: Final = """
import importlib, logging, os, pkgutil, signal, sys, threading
def state():
    root = logging.getLogger()
    return (
        dict(os.environ), threading.active_count(), {s: signal.getsignal(s) for s in signal.valid_signals()},
        root.level, list(root.handlers), os.getcwd(), sys.stdout, sys.stderr,
        sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")[:-1]),
    )
import proxy
before = state()
for module in pkgutil.walk_packages(proxy.__path__, "proxy."):
    if module.name != "proxy.__main__":
        importlib.import_module(module.name)
after = state()
assert before == after, [pair for pair in zip(before, after) if pair[0] != pair[1]]
"""

PRIVATE_BUT_USED: Final = {
    "_get_current_object",  # part of werkzeug's documented interface
    "_check_protocol",  # Hypercorn has no setting that turns HTTP/2 upgrades off
    "_send_pings",  # its own goes on after the end of a WebSocket
    "_close",  # where aiocache's backends are extended
    "_replace",  # part of the documented interface of named tuples
}
"""Attributes of libraries whose names begin with an underscore. Do not add to them."""


@functools.cache
def modules() -> dict[str, ast.Module]:
    """Return every module of the package by its path, with its syntax tree."""
    return {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def test_the_import_contracts_hold() -> None:
    assert import_linter.lint_imports(str(ROOT / "pyproject.toml"), no_cache=True, no_logo=True) == 0


def imported_by(tree: ast.Module) -> set[str]:
    """Return the modules that a module imports, anywhere in its text."""
    names = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def libraries_of(tree: ast.Module) -> set[str]:
    """Return the third-party libraries that a module imports, without the one that all may import."""
    libraries = {name.partition(".")[0] for name in imported_by(tree)}
    return libraries - {*sys.stdlib_module_names, "proxy", "msgspec"}


def contract(name: str) -> dict[str, Any]:
    """Return a contract of pyproject.toml."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (found,) = [each for each in contracts if each["name"] == name]
    return cast(dict[str, Any], found)


def test_every_third_party_library_is_in_the_contract() -> None:
    libraries = set[str]().union(*map(libraries_of, modules().values()))
    assert libraries == {*contract("Only listed modules import a third-party library")["forbidden_modules"]}


ROW: Final = re.compile(r"^\| ([\d-]+) \| `([\w./]+)` \|[^|]+\| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
"""A row of the table of packages: layer, module, its purpose, own modules and libraries that it imports."""
FOR_ALL_LAYERS: Final = {
    "lean_imports",
    "secret_detection",
    "shared_tasks",
    "shipped",
    "task_groups",
    "transport_failure",
}


def packages_table() -> dict[str, tuple[str, ...]]:
    """Return the table of packages in ARCHITECTURE.md: the module of each row, with layer and imports."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rows = ROW.findall(text.partition("\n## The packages\n")[2].partition("\n## ")[0])
    return {module: (layer, *imports) for layer, module, *imports in rows}


def imports_by_row(rows: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return the correct table of packages. Each module belongs to the longest row that contains it."""
    layers: list[str] = [*reversed(contract("Imports point down")["layers"])]
    numbers = {name: str(place) for place, names in enumerate(layers) for name in re.findall(r"\w+", names)}
    own, libraries = {row: set[str]() for row in rows}, {row: set[str]() for row in rows}
    for path, tree in modules().items():
        inside = path.removeprefix("proxy/")
        row = max(
            (row for row in rows if inside == row or (row.endswith("/") and inside.startswith(row))),
            key=len,
            default="",
        )
        if not row and path.endswith("/__init__.py"):
            continue  # holds a docstring and the version
        assert row, f"{path} is in no row of ARCHITECTURE.md"
        package = re.split(r"[./]", row)[0]
        names = {name.split(".")[1] for name in imported_by(tree) if name.startswith("proxy.")}
        own[row] |= names & {*numbers, "gateway"} - {package, *FOR_ALL_LAYERS}
        libraries[row] |= libraries_of(tree)
    return {
        row: (
            numbers.get(re.split(r"[./]", row)[0], "-"),
            *(", ".join(sorted(names)) or "-" for names in (own[row], libraries[row])),
        )
        for row in rows
    }


def test_the_table_of_packages_shows_the_layers_and_the_imports() -> None:
    table = packages_table()
    assert table == imports_by_row(table)


def test_what_the_architecture_says_where_to_look_exists() -> None:
    """Each path must exist, and each name after it must be a name of that module."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    places = re.findall(
        r"`(proxy/[\w./]+)`(?:: ((?:`\w+`(?:, | and |, and )?)+))?",
        text.partition("\n## Where to look\n")[2].partition("\n## ")[0],
    )
    assert [path for path, _ in places if not (ROOT / path).exists()] == []
    assert [
        f"{path}: {name}"
        for path, after in places
        for name in re.findall(r"\w+", after.replace(" and ", " "))
        if name not in names(modules()[path])
    ] == []


def test_importing_has_no_effect() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_EFFECT], cwd=ROOT, check=True)


def test_every_module_has_a_docstring() -> None:
    assert [path for path, tree in modules().items() if not ast.get_docstring(tree)] == []


@pytest.mark.parametrize(
    ("forbidden", "exempt"),
    [
        # A TCP connection is refused, and a token endpoint refuses: see the table in CONTRIBUTING.md.
        (
            r"(?<!connection )(?<!connection was )\brefus\w*",
            ("proxy/cloud_sdks/", "proxy/credentials/", "proxy/recipe/"),
        ),
        (r"\btokens?\b[^.;:]{0,30}\brenew\w*|\brenew\w* (?:a|an|the|its|their) tokens?\b", ()),
        (
            r"\b(?:an?|the|its|whole|interim) answers?\b",
            tuple(
                f"proxy/{name}/" for name in ("api_docs", "blueprints", "chat", "cli", "gateway", "settings")
            ),
        ),
    ],
    ids=["reject", "refresh", "response"],
)
def test_docstrings_use_the_words_of_the_glossary(forbidden: str, exempt: tuple[str, ...]) -> None:
    assert [
        f"{path}: {found[0]}"
        for path, tree in modules().items()
        if not path.startswith(exempt)
        for text in docstrings(tree)
        for found in re.finditer(forbidden, text, re.IGNORECASE)
    ] == []


NAMED_REFUSE: Final = {
    # of token endpoints and connections
    "IssuerRefuses", "_oauth_refusal", "ConnectionRefusedError", "ECONNREFUSED", "REFUSED", "PROXY_REFUSED",
    "'refused'", "'proxy_refused'", "'token_refused'",
    # of OpenAI's messages, a metric and a repair, whose names others use
    "refusal", "'refusal'", "'limit_refusals'", "REFUSE_TOKEN_IDS", "refuse_token_ids", "'refuse_token_ids'",
}  # fmt: skip
"""The only names with this word outside the packages that talk to token endpoints."""


def test_names_and_log_events_use_the_words_of_the_glossary() -> None:
    with_word = {
        name
        for path, tree in modules().items()
        if not path.startswith(
            ("proxy/cloud_sdks/", "proxy/credentials/", "proxy/recipe/", "proxy/cli/recipe.py")
        )
        for name in names(tree)
        if "refus" in name.lower()
    }
    assert with_word - NAMED_REFUSE == set()
    assert NAMED_REFUSE - with_word == set(), "a name of the list is not used any more"


def test_no_variable_calls_a_response_an_answer() -> None:
    relay = (
        "proxy/upstream/",
        "proxy/server/",
        "proxy/wire/",
        "proxy/lifecycle/",
        "proxy/asgi.py",
        "proxy/app.py",
    )
    assert [
        f"{path}:{node.lineno}"
        for path, tree in modules().items()
        if path.startswith((*relay, "proxy/blueprints/exchange.py", "proxy/blueprints/realtime.py"))
        for node in ast.walk(tree)
        if isinstance(node, ast.Name | ast.arg) and {*names(node)} & {"answer", "answers"}
    ] == []


def names(tree: ast.AST) -> Iterator[str]:
    """Yield the names in a module, and in quotes the strings that are names, such as those of log events."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.keyword(arg=str(name)):
                yield name
            case ast.Constant(value=str(name)) if re.fullmatch(r"[a-z]+(?:_[a-z]+)*", name):
                yield f"'{name}'"


def docstrings(tree: ast.Module) -> Iterator[str]:
    """Yield the docstrings of modules, classes, functions and attributes, without code."""
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield re.sub(r"`+[^`]*`+", "", " ".join(text.split()))


def test_each_ignored_type_error_has_a_code_and_a_reason() -> None:
    assert [
        f"{path}:{number}"
        for path in modules()
        for number, line in enumerate((ROOT / path).read_text(encoding="utf-8").splitlines(), 1)
        if "type: ignore" in line and not re.search(r"# type: ignore\[[a-z,-]+\]  # \w", line)
    ] == []


def test_each_broad_except_has_a_reason() -> None:
    assert [
        f"{path}:{number + 1}"
        for path in modules()
        for lines in [(ROOT / path).read_text(encoding="utf-8").splitlines()]
        for number, line in enumerate(lines)
        if re.match(r" *except (Base)?Exception\b", line) and "# " not in line + lines[number + 1]
    ] == []


def test_docstrings_of_functions_do_not_begin_with_a_noun() -> None:
    assert [
        f"{path}:{node.lineno}"
        for path, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and re.match(r"(?:The|An?|What|How|Where|When)\b", ast.get_docstring(node) or "")
        and not any(ast.unparse(each).endswith("property") for each in node.decorator_list)
    ] == []


def test_each_raised_error_in_a_docstring_has_a_sentence() -> None:
    assert [
        f"{path}: {line}"
        for path, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for raised in (ast.get_docstring(node) or "").partition("Raises:\n")[2:]
        for line in raised.splitlines()
        if re.match(r" {4}[\w., ]+: [a-z]", line)
    ] == []


def test_there_are_no_globals() -> None:
    assert [
        f"{path}:{node.lineno}"
        for path, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Global)
    ] == []


def bindings(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield each name that a module binds, with the expression or the annotation of its value."""
    for node in ast.walk(tree):
        if isinstance(node, ast.withitem) and node.optional_vars is not None:
            yield ast.unparse(node.optional_vars), ast.unparse(node.context_expr)
        elif isinstance(node, ast.arg):
            yield node.arg, "" if node.annotation is None else ast.unparse(node.annotation)
        elif isinstance(node, ast.Assign):
            value = ENTERED.sub(r"\1", ast.unparse(node.value))
            yield from ((ast.unparse(target), value) for target in node.targets)


def task_groups_in(tree: ast.Module) -> set[str]:
    """Return the names that a module binds only to task groups."""
    values: dict[str, set[str]] = {}
    for name, value in bindings(tree):
        values.setdefault(name, set()).add(value)
    groups = {*values}
    while others := {name for name in groups if not values[name] <= TASK_GROUPS | groups}:
        groups -= others
    return groups


def test_tasks_start_in_task_groups() -> None:
    outside = Counter[str]()
    for path, tree in modules().items():
        groups = task_groups_in(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in {"create_task", "ensure_future"}:
                outside[path] += ast.unparse(node.value) not in groups

    assert +outside == Counter(OWN_THEIR_TASKS)


def private_names(tree: ast.AST, context: type[ast.expr_context]) -> Iterator[str]:
    """Yield the private attributes that are stored, or loaded."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, context)
            and re.match("_[a-z]", node.attr)
        ):
            yield node.attr


def test_no_private_attribute_of_a_library_is_read() -> None:
    ours, used = set[str](), set[str]()
    for tree in modules().values():
        ours |= {*private_names(tree, ast.Store)}
        used |= {*private_names(tree, ast.Load)}
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                ours.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                ours.add(node.id)

    assert used - ours - PRIVATE_BUT_USED == set()


def library_classes() -> Iterator[tuple[type, type]]:
    """Yield each class of the package with each library class that it derives from."""
    for path in modules():
        module = importlib.import_module(path.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
        for defined in vars(module).values():
            if inspect.isclass(defined) and defined.__module__ == module.__name__:
                for base in defined.__mro__[1:]:
                    library = base.__module__.partition(".")[0]
                    if library != "proxy" and library not in sys.stdlib_module_names:
                        yield defined, base


@functools.cache
def class_sources(module: str) -> dict[str, str]:
    """Return the source of each class of a module; empty if it is not written in Python."""
    try:
        source = inspect.getsource(sys.modules[module])
    except (OSError, TypeError):
        return {}
    lines = source.splitlines()
    classes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    return {node.name: "\n".join(lines[node.lineno - 1 : node.end_lineno]) for node in classes}


@functools.cache
def private_to(defined: type) -> set[str]:
    """Return the private attributes that a class defines, sets or reads."""
    source = class_sources(defined.__module__).get(defined.__name__, "")
    return {*re.findall(r"(?:\b(?:self|cls)\.|\bsuper\(\)\.|\bdef )(_[a-z]\w*)", source)}


def test_no_subclass_depends_on_private_attributes_of_its_library() -> None:
    shared = set[str]()
    for defined, base in library_classes():
        shared |= private_to(defined) & private_to(base)

    assert shared - PRIVATE_BUT_USED == set()
