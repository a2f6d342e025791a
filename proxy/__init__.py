"""The LLM token proxy: a static key comes in, a live token goes out, every byte is relayed.

From top to bottom; imports point down only, which the contracts in pyproject.toml check:

    cli, server          commands; the server of one worker
    app, cors            create_app: wiring; callers in browsers
    blueprints           routes
    asgi                 the HTTP connection
    config_snapshots     the services of the current configuration, and reload
    status, api_docs     the status page; the description of the API
    chat                 the web chat
    lifecycle            one exchange from its arrival to its log line
    services             the long-lived objects of one worker
    upstream             routing, attempts, relay, client, transport
    access               who is calling, and what each caller may use
    credentials          the shared token and its sources
    telemetry, settings  logs and metrics; configuration
    errors, secret, wire errors; rules about bytes, paths and headers (pure)

    gateway              the demonstration gateway, which imports nothing of the rest
"""

__version__ = "0.1.0"
