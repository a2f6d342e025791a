"""The bill of materials in CycloneDX's JSON: the same bytes for the same commit."""

import json
import uuid
from datetime import UTC, datetime
from typing import Any, Final

from proxy import __version__
from tests.release.packages import Package, licence_of, locked

NAME: Final = "llm-token-proxy"
OURS: Final = f"pkg:pypi/{NAME}@{__version__}"


def bill_of_materials(epoch: int) -> str:
    """Return the bill of materials.

    Args:
        epoch: The time of the commit, in seconds.
    """
    packages = locked()
    components = [_component(package) for package in packages]
    bill = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, OURS + json.dumps(components))}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch, UTC).isoformat(),
            "component": {
                "type": "application",
                "bom-ref": OURS,
                "name": NAME,
                "version": __version__,
                "purl": OURS,
                "licenses": [{"expression": "MIT"}],
            },
        },
        "components": components,
        "dependencies": _dependencies(packages),
    }
    return json.dumps(bill, indent=2) + "\n"


def _component(package: Package) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": package.url,
        "name": package.name,
        "version": package.version,
        "purl": package.url,
        "licenses": [{"expression": licence_of(package)}],
    }
    if package.marker is not None:
        component["properties"] = [{"name": "python:marker", "value": package.marker}]
    return component


def _dependencies(packages: list[Package]) -> list[dict[str, Any]]:
    urls: dict[str, list[str]] = {NAME: [OURS]}
    for package in packages:
        urls.setdefault(package.name, []).append(package.url)
    needs: dict[str, list[str]] = {url: [] for known in urls.values() for url in known}
    for package in packages:
        for name in package.dependencies_of:
            for url in urls.get(name, ()):
                needs[url].append(package.url)
    return [{"ref": url, "dependsOn": sorted({*needed})} for url, needed in needs.items()]
