"""Fetch one token with the SDK of a cloud: `python -m proxy.cloud_sdks`, a process for each fetch.

The SDKs wait without a limit, read replies of any size, and run commands. A process can be killed with all of
that. It imports nothing else of the proxy, so that it starts fast.
"""
