"""Draws the Grafana dashboard from real data: `python -m tests.dashboard`."""
