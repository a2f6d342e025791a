"""Run the clouds' SDKs without the process of their own, which takes a second to start."""

import asyncio

from proxy.cloud_sdks.fetch import load_sdk
from proxy.cloud_sdks.outcome import SdkOutcome
from proxy.cloud_sdks.parameters import Parameters
from proxy.credentials.sources.cloud import CloudCredential, CloudTokenSource


async def _run_here(parameters: Parameters) -> SdkOutcome:
    """Run an SDK on this event loop, or in a thread if it blocks."""
    fetch = load_sdk(parameters)
    if parameters.source == "azure":
        return await fetch()
    return await asyncio.to_thread(asyncio.run, fetch())


def source_here(section: CloudCredential) -> CloudTokenSource:
    """Return a source whose SDK runs in the process of the test."""
    return CloudTokenSource(section, _run_here)
