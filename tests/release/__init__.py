"""What a release consists of: `python -m tests.release` makes it, `make release` runs that."""
