"""Actions that no page may perform, whatever it shows."""

from playwright.async_api import ConsoleMessage, Page


class Watch:
    """What pages did that they must not do.

    Args:
        origins: The only ones that may be asked for anything.
    """

    def __init__(self, *origins: str) -> None:
        self.complaints: list[str] = []
        self._allowed = (*(f"{origin}/" for origin in origins), "data:")

    def over(self, page: Page) -> None:
        """Watch a page from the start."""
        page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        page.on("console", self._heard)
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: self._asked(request.url))

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.complaints.append(f"console: {message.text}")

    def _asked(self, url: str) -> None:
        if not url.startswith(self._allowed):
            self.complaints.append(f"left the site: {url}")
