"""The LLM token proxy: a static key comes in, a live token goes out, every byte is relayed.

Floors; imports go down only (ARCHITECTURE.md draws the same table, and a test holds both):

    9  cli, __main__        commands
    8  app                  create_app: wiring
    7  blueprints, cors     routes; callers in browsers
    6  services, asgi       the long-lived objects of one worker, by generations; the HTTP connection
    5  chat, caller_limits  the web chat; what a caller may use
    4  access, counting     who is calling; how much was used
    3  upstream             routing, attempts, relay, client, transport
    2  credentials          token sources and the shared token      redis_connection
    1  settings, telemetry  configuration; logs
    0  errors, secret, wire rules about bytes, paths and headers (pure)
    -  gateway              the demonstration gateway; knows nothing of the rest
"""

__version__ = "0.1.0"
