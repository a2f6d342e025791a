"""The LLM token proxy: a static key comes in, a live token goes out, every byte is relayed.

Floors; imports go down only (ARCHITECTURE.md draws the same table, and a test holds both):

    9  cli, __main__        commands
    8  app                  create_app: wiring
    7  blueprints, asgi     routes; the HTTP connection
    6  services             the long-lived objects of one worker
    4  upstream.relay       one exchange         access        who is calling
    3  upstream             client, transport, routing
    2  credentials          token sources and the shared token
    1  settings, telemetry  configuration; logs
    0  errors, secret, wire rules about bytes, paths and headers (pure)
    -  gateway              the demonstration gateway; knows nothing of the rest
"""

__version__ = "0.1.0"
