"""Random requests, random cancels, upstreams that misbehave: no caller may get a byte of another's answer."""
