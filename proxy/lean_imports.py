"""Import a library without the large packages that it imports and this service does not use."""

import contextlib
import importlib
import importlib.abc
import importlib.util
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib.abc import SourceLoader
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


@contextlib.contextmanager
def without(package: str) -> Iterator[None]:
    """Let the block import libraries as if a package that they can do without were not installed.

    A package that is imported already, or just now by another thread, stays visible: hiding it saves nothing.

    Args:
        package: Its full name.
    """
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # how the import system marks a missing module
    try:
        yield
    finally:
        if sys.modules.get(package) is None:
            sys.modules.pop(package, None)


@contextlib.contextmanager
def lazy_packages(*packages: str) -> Iterator[None]:
    """Defer the body of packages, and of those inside them, when the block imports them.

    If `__init__.py` imports a name from one of its modules, as itself, reading it imports only that module.
    Reading any other name runs `__init__.py`. A module that reads such a name while it is imported itself
    should not exist: while another thread runs the package, the two would wait for each other.

    Args:
        packages: The full names of the outermost packages.
    """
    finder = _Finder(packages)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, packages: Sequence[str]) -> None:
        self._packages = packages

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the usual spec of a package, with a lazy loader; None for anything else."""
        if not any(name == package or name.startswith(f"{package}.") for package in self._packages):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if (
            spec is None
            or spec.submodule_search_locations is None
            or not isinstance(spec.loader, SourceLoader)
        ):
            return None
        spec.loader = _LazyLoader(spec.loader)
        return spec


class _LazyLoader(importlib.abc.Loader):
    def __init__(self, loader: SourceLoader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        names, lock, is_running = vars(module), threading.RLock(), False

        def load(name: str) -> object:
            """Import what the name stands for, or run the package (PEP 562)."""
            nonlocal is_running
            if name.startswith("__") and name != "__all__":
                raise AttributeError(name)
            if not is_running and (found := self._find(name, module.__name__)) is not None:
                names[name] = found
                return found
            with lock:
                if names.get("__getattr__") is load:
                    if is_running:  # it asks itself for a name that it has not bound yet
                        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
                    is_running = True
                    try:
                        self._loader.exec_module(module)
                    finally:
                        is_running = False
                    if names.get("__getattr__") is load:
                        del names["__getattr__"]
            return getattr(module, name)

        names["__getattr__"] = load

    def _find(self, name: str, package: str) -> object:
        """Return what `__init__.py` imports from one of its modules as `name`, or the module of this name."""
        binding = rf"\b{re.escape(name)} as {re.escape(name)}\b"
        lines = rf"^from \.(\w+) import (?:[^()\n]*|\([^()]*){binding}"
        homes = re.findall(lines, self._loader.get_source(package) or "", re.MULTILINE)
        if len(homes) == 1:
            return getattr(importlib.import_module(f"{package}.{homes[0]}"), name)
        if not homes and importlib.util.find_spec(f"{package}.{name}") is not None:
            return importlib.import_module(f"{package}.{name}")
        return None
