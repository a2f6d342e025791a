"""Routes: one module a resource, views that read, call one thing and answer."""
