"""Serve an ASGI application: sockets, HTTP/1.1, WebSockets, the drain at the end."""
