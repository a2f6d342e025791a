"""The LLM token proxy: a static key comes in, a live token goes out, every byte is relayed.

Layers; imports go down only (ARCHITECTURE.md draws the same table, and a test checks both):

    9  cli, __main__        commands
    8  app                  create_app: wiring
    7  blueprints, cors     routes; callers in browsers
    6  asgi                 the HTTP connection                        config_snapshots  reload
    5  chat                 the web chat
    4  lifecycle, services  one exchange; the long-lived objects of one worker
    3  upstream             routing, attempts, relay, client, transport
    2  access, credentials  who is calling, and what each caller may use; the shared token
    1  settings, telemetry  configuration; logs
    0  errors, secret, wire rules about bytes, paths and headers (pure)
    -  gateway              the demonstration gateway; knows nothing of the rest
"""

__version__ = "0.1.0"
