"""The API as an OpenAPI document: https://spec.openapis.org/oas/v3.1.1 (pure).

It holds what this version of the service serves, and nothing of its configuration.
"""

from collections.abc import Collection, Mapping
from http import HTTPStatus
from typing import Final

from proxy import __version__
from proxy.api_docs.own_routes import OWN_ROUTES, OwnRoute, Parameter
from proxy.api_docs.relayed import RelayedPath, relayed_paths
from proxy.wire.endpoints import COHERE_RERANK, OTHER, RERANK, Endpoint, ModelPlace
from proxy.wire.paths import ORIGINAL_MOUNT

Object = dict[str, object]

API_REFERENCE: Final = "https://platform.openai.com/docs/api-reference"
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
_MODEL: Final = {
    ModelPlace.NONE: "It runs no model.",
    ModelPlace.BODY: "The body names the model.",
    ModelPlace.PATH: "The path names the model.",
    ModelPlace.QUERY: "The query names the model.",
    ModelPlace.HIDDEN: "It may run models that the request does not name.",
}
_OUR_ERRORS: Final = (
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)
_TAGS: Final = {
    "relayed": "Forwarded to the upstream byte for byte. The service validates neither request nor response.",
    "operations": "Answered by the service itself. No key is needed.",
    "chat": "The web chat. Visitors have a session cookie and need no key.",
    "status": "The status page, which has its own key.",
}
_ABOUT: Final = (
    "OpenAI's API with a key that never changes, in front of upstreams whose tokens expire. Operations with "
    "`x-relayed` are forwarded: the upstream defines their bodies. They are also served below "
    f"`{ORIGINAL_MOUNT}`, with `/v1/v1` in place of `/v1`, and, with `x-without-version`, without `/v1`."
)


def describe_api(groups: Collection[str]) -> Object:
    """Return the document.

    Args:
        groups: The groups of `OWN_ROUTES` that this service serves.
    """
    paths: dict[str, Object] = {}
    for route in OWN_ROUTES:
        if route.group in groups:
            paths.setdefault(route.path, {})[route.method] = _own_operation(route)
    for relayed in relayed_paths():
        paths[f"/v1/{relayed.template}"] = _relayed_item(relayed, f"v1/{relayed.template}")
        if relayed.template == RERANK.name:
            paths[f"/{COHERE_RERANK}"] = _relayed_item(relayed, COHERE_RERANK)
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "LLM token proxy",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": name, "description": text}
            for name, text in _TAGS.items()
            if name == "relayed" or name in groups
        ],
        "externalDocs": {"description": "OpenAI's API reference", "url": API_REFERENCE},
        "paths": paths,
        "components": _components(),
    }


def _relayed_item(relayed: RelayedPath, path: str) -> Object:
    parameters = [_parameter(Parameter(name, "path", meaning)) for name, meaning in relayed.parameters]
    operations = {
        method.lower(): _relayed_operation(method, path, endpoint)
        for method, endpoint in relayed.endpoints.items()
    }
    return {
        "servers": [{"url": "/"}, {"url": ORIGINAL_MOUNT}],
        **({"parameters": parameters} if parameters else {}),
        **operations,
    }


def _relayed_operation(method: str, path: str, endpoint: Endpoint) -> Object:
    operation: Object = {
        "operationId": _identifier(method, path),
        "tags": ["relayed"],
        "summary": f"Relayed: {'any other path' if endpoint is OTHER else endpoint.name}",
        "description": " ".join(_sentences(endpoint)),
        "security": [{"bearer": []}, {"x_api_key": []}, {"api_key": []}],
        "responses": _relayed_responses(endpoint),
        "x-relayed": True,
        "x-endpoint": endpoint.name,
        "x-without-version": endpoint.bare,
        "x-limited-keys": endpoint.for_limited_keys,
    }
    if endpoint.websocket:
        operation["x-websocket"] = True
    if method in _WITH_BODY:
        kinds = ["application/json", *(["multipart/form-data"] if endpoint.form else [])]
        if endpoint.model is not ModelPlace.BODY:
            kinds.append("*/*")
        operation["requestBody"] = {
            "description": "Forwarded as it is. The service checks only that JSON is an object.",
            "content": {kind: {} for kind in kinds},
        }
    return operation


def _sentences(endpoint: Endpoint) -> list[str]:
    sentences = [
        "Forwarded to the upstream and never validated here.",
        _MODEL[endpoint.model],
    ]
    if endpoint.websocket:
        sentences.append("A WebSocket.")
    elif endpoint.stream is not None:
        sentences.append("The response may be an event stream.")
    if not endpoint.for_limited_keys:
        sentences.append("A key that is limited to models may not use it unless its `endpoints` say so.")
    if endpoint.uncounted:
        sentences.append("The same applies to a key with a token budget.")
    if endpoint.background:
        sentences.append("A key with a token budget may not set `background`.")
    return sentences


def _relayed_responses(endpoint: Endpoint) -> Object:
    content: Object = {"application/json": {}}
    if endpoint.stream is not None and not endpoint.websocket:
        content["text/event-stream"] = {}
    return {
        **{str(status.value): {"$ref": "#/components/responses/Error"} for status in _OUR_ERRORS},
        "default": {"description": "The response of the upstream, with its own status.", "content": content},
    }


def _own_operation(route: OwnRoute) -> Object:
    operation: Object = {
        "operationId": _identifier(route.method, route.path.strip("/") or "index"),
        "tags": [route.group],
        "summary": route.summary.en,
        "security": [{"status_key": []}, {"status_session": []}] if route.needs_session else [],
        "responses": {str(status): _own_response(route, status, text) for status, text in route.statuses},
    }
    if route.parameters:
        operation["parameters"] = [_parameter(parameter) for parameter in route.parameters]
    if route.body is not None:
        kind, field = route.body
        schema = {"type": "object", "properties": {field: {"type": "string"}}, "required": [field]}
        operation["requestBody"] = {"required": True, "content": {kind: {"schema": schema}}}
    return operation


def _own_response(route: OwnRoute, status: int, text: str) -> Object:
    has_body = status == HTTPStatus.OK
    return {"description": text, **({"content": {route.answer: {}}} if has_body else {})}


def _parameter(parameter: Parameter) -> Object:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.place == "path",
        "description": parameter.meaning,
        "schema": {"type": "string"},
    }


def _identifier(method: str, path: str) -> str:
    words = "".join(character if character.isalnum() else "_" for character in path)
    return f"{method.lower()}_{words}"


def _components() -> Mapping[str, object]:
    name, optional = {"type": "string"}, {"type": ["string", "null"]}
    detail = {
        "type": "object",
        "required": ["message", "type", "param", "code"],
        "properties": {"message": name, "type": name, "param": optional, "code": optional},
    }
    return {
        "schemas": {
            "Error": {
                "description": "OpenAI's error envelope.",
                "type": "object",
                "required": ["error"],
                "properties": {"error": detail},
            }
        },
        "responses": {
            "Error": {
                "description": "An error of the service, or of the upstream with this status.",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            }
        },
        "securitySchemes": {
            "bearer": {"type": "http", "scheme": "bearer", "description": "The key of a caller."},
            "x_api_key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
            "api_key": {"type": "apiKey", "in": "header", "name": "Api-Key"},
            "status_key": {"type": "http", "scheme": "bearer", "description": "The key of the status page."},
            "status_session": {"type": "apiKey", "in": "cookie", "name": "llm_status"},
        },
    }
