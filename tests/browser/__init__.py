"""The chat page and its drawer in a real Chromium."""
