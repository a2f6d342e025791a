"""`python -m proxy`."""

import sys

from proxy.cli import script

if __name__ == "__main__":
    sys.exit(script())
