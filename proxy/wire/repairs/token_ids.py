"""Token ids in place of text in an embedding request, read back or refused.

`input` is a text, texts, the ids of one text, or the ids of several:
https://platform.openai.com/docs/api-reference/embeddings/create
"""

import re
from collections.abc import Callable
from typing import Final

import msgspec

from proxy.errors import InvalidRequest
from proxy.wire.repairs.shallow_json import Members, open_list, read_value, write

ReadIds = Callable[[list[int]], str]
"""Gives the text of token ids; raises InvalidRequest where they are none."""

IDS_SIGN: Final = re.compile(rb'"input"\s*:\s*\[\s*[\[0-9]')
"""Without it an embedding request holds no token ids at its beginning."""
_REFUSED: Final = (
    "`input` holds token ids, and this upstream reads text only; in LangChain, create the embeddings with "
    "OpenAIEmbeddings(check_embedding_ctx_length=False)"
)


def refuse_ids(_: list[int]) -> str:
    """Read nothing.

    Raises:
        InvalidRequest: always.
    """
    raise InvalidRequest(_REFUSED, param="input")


def refuse_token_ids(request: Members) -> None:
    """Refuse a request that holds token ids."""
    # One list of ids, or a list of such lists: a JSON text begins with a quote.
    if any(not bytes(item).startswith(b'"') for item in open_list(request.get("input")) or ()):
        refuse_ids([])


def decode_token_ids(request: Members, read_ids: ReadIds) -> Members | None:
    """Texts in place of token ids; None where there are none.

    What is no list of ids, such as one with fractions, is the upstream's to refuse.
    """
    items = open_list(request.get("input"))
    if not items:
        return None
    ids = _ids(read_value(request["input"]))
    if ids is not None:
        return {**request, "input": write(read_ids(ids))}
    texts = [_text(item, read_ids) for item in items]
    return {**request, "input": write(texts)} if texts != items else None


def _text(item: msgspec.Raw, read_ids: ReadIds) -> msgspec.Raw:
    ids = _ids(read_value(item))
    return item if ids is None else write(read_ids(ids))


def _ids(value: object) -> list[int] | None:
    """A list of nothing but whole numbers."""
    if not isinstance(value, list) or not value:
        return None
    return value if all(type(number) is int and number >= 0 for number in value) else None
