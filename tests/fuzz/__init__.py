"""Random requests, random disconnects and misbehaving upstreams: no caller may get a foreign byte."""
