"""Repairs of embedding requests that hold token ids in place of text.

`input` is a text, texts, the ids of one text, or the ids of several:
https://platform.openai.com/docs/api-reference/embeddings/create
"""

from typing import Final

import msgspec

from proxy.errors import InvalidRequest
from proxy.wire.endpoints import Shape
from proxy.wire.repairs.registry import ReadIds, Repair
from proxy.wire.repairs.shallow_json import Members, open_list, read_value, write

_IDS_SIGN: Final = rb'"input"\s*:\s*\[\s*[\[0-9]'
"""Without it an embedding request holds no token ids at its beginning."""
_LANGCHAIN: Final = (
    "LangChain, OpenAIEmbeddings with check_embedding_ctx_length=True (langchain-openai 1.7.4)",
)
_REFUSED: Final = (
    "`input` holds token ids, and this upstream reads text only; in LangChain, create the embeddings with "
    "OpenAIEmbeddings(check_embedding_ctx_length=False)"
)


def refuse_ids(_: list[int]) -> str:
    """Reject any token ids.

    Raises:
        InvalidRequest: Always.
    """
    raise InvalidRequest(_REFUSED, param="input")


DECODE_TOKEN_IDS: Final = Repair(
    "decode_token_ids",
    "Writes texts where an embedding request holds token ids; needs the extra `tiktoken`.",
    clients=_LANGCHAIN,
)


@DECODE_TOKEN_IDS.on_requests(Shape.EMBEDDINGS, sign=_IDS_SIGN)
def decode_token_ids(request: Members, read_ids: ReadIds) -> Members | None:
    """Write texts in place of token ids; lists of anything else are left to the upstream."""
    items = open_list(request.get("input"))
    if not items:
        return None
    ids = _ids(read_value(request["input"]))
    if ids is not None:
        return {**request, "input": write(read_ids(ids))}
    texts = [_text(item, read_ids) for item in items]
    return {**request, "input": write(texts)} if texts != items else None


REFUSE_TOKEN_IDS: Final = Repair(
    "refuse_token_ids",
    "Answers token ids in place of text in an embedding request with a 400 that names the option.",
    clients=_LANGCHAIN,
    sets=("langchain",),
)


@REFUSE_TOKEN_IDS.on_requests(Shape.EMBEDDINGS, sign=_IDS_SIGN)
def refuse_token_ids(request: Members, _: ReadIds) -> None:
    """Reject a request that holds token ids."""
    # One list of ids, or a list of such lists: a JSON text begins with a quote.
    if any(not bytes(item).startswith(b'"') for item in open_list(request.get("input")) or ()):
        refuse_ids([])


def _text(item: msgspec.Raw, read_ids: ReadIds) -> msgspec.Raw:
    ids = _ids(read_value(item))
    return item if ids is None else write(read_ids(ids))


def _ids(value: object) -> list[int] | None:
    """Return a list of nothing but whole numbers."""
    if not isinstance(value, list) or not value:
        return None
    return value if all(type(number) is int and number >= 0 for number in value) else None
