"""Tests of the demonstration gateway."""
