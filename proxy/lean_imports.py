"""Import a library without the large packages that it imports and this service does not use."""

import contextlib
import importlib.abc
import sys
import threading
from collections.abc import Iterator, Sequence
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
def lazy_packages(package: str) -> Iterator[None]:
    """Defer the body of a package, and of those inside it, when the block imports them.

    A deferred package runs its `__init__.py` when one of its names is first read. Its modules can be imported
    before that. A module that reads a name of the package while it is imported itself should not exist: while
    another thread runs the package, the two would wait for each other.

    Args:
        package: The full name of the outermost package.
    """
    finder = _Finder(package)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the usual spec of a package, with a lazy loader; None for anything else."""
        if name != self._package and not name.startswith(f"{self._package}."):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None or spec.submodule_search_locations is None:
            return None
        spec.loader = _LazyLoader(spec.loader)
        return spec


class _LazyLoader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        names, lock, is_running = vars(module), threading.RLock(), False

        def load(name: str) -> object:
            """Run the package, and return the name (PEP 562)."""
            nonlocal is_running
            if name.startswith("__") and name != "__all__":
                raise AttributeError(name)
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
