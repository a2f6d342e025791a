"""An HTTP connection that can be broken off in the middle of a response."""

from typing import TYPE_CHECKING

from quart.asgi import ASGIHTTPConnection

if TYPE_CHECKING:
    from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable


class StreamCut(Exception):
    """Raised while a body is sent: no last chunk, the connection closes, nothing is logged."""


class GatewayConnection(ASGIHTTPConnection):
    """Quart's connection, which ends without a word where a stream is to be cut.

    The server finds the response unfinished and closes the connection. Quart 0.22 raises what broke the
    body as it is, 0.23 in a group; a TimeoutError, which both take for their response timeout, would leave
    0.23 waiting for the caller to go.
    """

    async def __call__(self, receive: "ASGIReceiveCallable", send: "ASGISendCallable") -> None:
        """Run one exchange."""
        try:
            await super().__call__(receive, send)
        except* StreamCut:
            pass
