"""Samples of the public interfaces that mypy checks and nothing runs.

`assert_type` states the type that a caller gets. A line with `# type: ignore[code]` must be an error: mypy
reports an ignore that nothing needs.
"""
