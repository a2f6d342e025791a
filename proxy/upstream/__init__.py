"""The way to the upstreams: the client that knows AsyncOpenAI, the routing, the relay of one exchange."""
