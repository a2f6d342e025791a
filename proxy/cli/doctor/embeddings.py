"""Send the requests by which RAGFlow checks embedding, rerank and vision models."""

import base64
import struct
import zlib
from http import HTTPStatus
from typing import Final

from proxy.cli.doctor.api import Api, CheckFailed, TimedResponse, first_object
from proxy.cli.doctor.chat import RAGFLOW_SECONDS, check_first_piece
from proxy.cli.doctor.findings import Finding
from proxy.cli.doctor.models import unusable_response
from proxy.wire.endpoints import EMBEDDINGS, RERANK, Endpoint

TEXT: Final = "Test if the api key is available"
QUERY: Final = "What's the weather?"
DOCUMENT: Final = "Is it sunny today?"
PICTURE_PIXELS: Final = 100
PICTURE_PROMPT: Final = "请描述图片的内容。"


async def check_embeddings(api: Api, model: str, *, for_clients: bool) -> list[Finding]:
    """Check an embedding of one text.

    Args:
        for_clients: Whether to send a field that some versions of RAGFlow send, and report what RAGFlow
            cannot read.
    """
    body: dict[str, object] = {"model": model, "input": [TEXT], "encoding_format": "float"}
    found: list[Finding] = []
    more = {"drop_params": True} if for_clients else {}
    response = await _ask(api, "/embeddings", {**body, **more}, EMBEDDINGS, model)
    if isinstance(response, TimedResponse) and response.status == HTTPStatus.BAD_REQUEST and more:
        retried = await _ask(api, "/embeddings", body, EMBEDDINGS, model)
        if isinstance(retried, TimedResponse) and retried.status == HTTPStatus.OK:
            found.append(api.found("drop_params_rejected", response.error))
            response = retried
    if isinstance(response, Finding):
        return [response]
    item = first_object(response.json(), "data")
    vector = item.get("embedding")
    if not isinstance(vector, list) or not vector:
        identity = "embedding_not_numbers" if isinstance(vector, str) else "embedding_empty"
        return [*found, api.found(identity)]
    if for_clients:
        usage = response.json_object().get("usage")
        if item.get("index") is None:
            found.append(api.found("embedding_no_index"))
        if isinstance(usage, dict) and usage.get("total_tokens") is None:
            found.append(api.found("embedding_no_total"))
    if response.seconds > RAGFLOW_SECONDS:
        found.append(api.found("slow_for_ragflow", seconds=f"{response.seconds:.2f}"))
    return [api.found("embedding_works", model=model, size=len(vector)), *found]


async def check_rerank(api: Api, model: str) -> Finding:
    """Check the ranking of one document."""
    body = {"model": model, "query": QUERY, "documents": [DOCUMENT], "top_n": 1}
    response = await _ask(api, "/rerank", body, RERANK, model)
    if isinstance(response, Finding):
        return response
    result = first_object(response.json(), "results")
    if not isinstance(result.get("index"), int) or not isinstance(result.get("relevance_score"), int | float):
        return api.found("rerank_unreadable")
    return api.found("rerank_works", model=model)


async def check_vision(api: Api, model: str) -> Finding:
    """Check a question about a picture."""
    url = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"
    question = [
        {"type": "text", "text": PICTURE_PROMPT},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    finding = await check_first_piece(api, model, question)
    if finding.id == "first_piece":
        return api.found("vision_works", model=model)
    return finding


def picture() -> bytes:
    """Return a small white PNG."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", PICTURE_PIXELS, PICTURE_PIXELS, 8, 0, 0, 0, 0)
    rows = (b"\0" + b"\xff" * PICTURE_PIXELS) * PICTURE_PIXELS
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


async def _ask(api: Api, path: str, body: object, endpoint: Endpoint, model: str) -> TimedResponse | Finding:
    """Return a response that is a JSON object, a 400 that rejects it, or the finding about any other."""
    try:
        response = await api.ask(path, body, endpoint=endpoint, model=model)
    except CheckFailed as error:
        return error.finding
    fault = api.rejected(response, model) or unusable_response(api, response)
    is_rejection = response.status == HTTPStatus.BAD_REQUEST and "drop_params" in response.error
    if fault is not None and not is_rejection:
        return fault
    return response
