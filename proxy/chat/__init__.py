"""The web chat: channels, the dialogues in them, and their rendering as events for a page."""
