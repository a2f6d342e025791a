"""The web chat: channels, the dialogue that fills them, and what of it reaches a page."""
