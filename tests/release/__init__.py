"""The files of a release: `python -m tests.release` builds them, and `make release` runs that."""
