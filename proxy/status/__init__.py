"""The status page: what the workers report, the overview made of it, and its HTML and SVG."""
