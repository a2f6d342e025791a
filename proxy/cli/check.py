"""`check`: validate the settings, print them resolved."""

import os
from pathlib import Path

from proxy.settings import describe, load_settings


def check(config: Path) -> int:
    """Print what the service would run with, secrets masked."""
    print(describe(load_settings(config, os.environ)))
    return 0
