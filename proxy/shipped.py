"""Find the files that come with the program: default and example configurations, the server's settings.

In a wheel they are in a folder of the package, in a checkout at its root. How an extra is installed depends
on the same difference.
"""

from pathlib import Path
from typing import Final

_PACKAGE: Final = Path(__file__).parent
FOLDER: Final = _PACKAGE / "shipped_files" if (_PACKAGE / "shipped_files").is_dir() else _PACKAGE.parent


def shipped(name: str) -> Path:
    """Return the path of a file by its name in the repository, such as `config/proxy.toml`."""
    return FOLDER / name


def install_command(extra: str) -> str:
    """Return the command that installs an extra of the distribution, from where the program was installed."""
    sources = _PACKAGE.parent == FOLDER
    return f"pip install '.[{extra}]'" if sources else f"pip install 'llm-token-proxy[{extra}]'"


def nearest(name: str) -> Path:
    """Return the file of that name below the current folder if there is one, else the shipped one."""
    return Path(name) if Path(name).is_file() else shipped(name)
