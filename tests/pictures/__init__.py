"""The pictures of `docs/ragflow.md`: `python -m tests.pictures` draws them from a running service."""
