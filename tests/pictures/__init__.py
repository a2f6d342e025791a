"""The pictures of the documents: `python -m tests.pictures` takes and draws them from running services."""
