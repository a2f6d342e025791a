"""Rerank with Cohere's client through the service, and print the result."""

import json
import sys
from typing import Any

import cohere

URL, KEY = sys.argv[1:3]


def rerank(path: str, key: str = KEY, kind: Any = cohere.Client) -> Any:
    try:
        answer = kind(api_key=key, base_url=URL + path).rerank(
            model="mock-rerank-model", query="Wie?", documents=["eins", "zwei", "drei"]
        )
    except cohere.core.ApiError as error:
        return [type(error).__name__, error.status_code]
    return [[result.index, round(result.relevance_score, 3)] for result in answer.results]


answers = {"root": rerank(""), "v1": rerank("/v1"), "wrong_key": rerank("", key="wrong")}
if hasattr(cohere, "ClientV2"):
    answers["second_version"] = [rerank(path, kind=cohere.ClientV2) for path in ("", "/v1")]
print(json.dumps(answers))
