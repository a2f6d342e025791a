"""Use the service with requests and urllib, and print the results."""

import json
import sys
import urllib.error
import urllib.request
from typing import Any

import requests

URL, KEY = sys.argv[1:3]
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "你是谁"}]}


def by_requests() -> Any:
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {KEY}"
        chat = session.post(URL + "/v1/chat/completions", json=CHAT, timeout=10)
        held = {**CHAT, "model": "odd:held", "stream": True}
        with session.post(URL + "/v1/chat/completions", json=held, stream=True, timeout=10) as stream:
            lines = (line for line in stream.iter_lines() if line)
            pieces = [json.loads(next(lines).removeprefix(b"data: ")) for _ in range(2)]
        wrong = requests.get(URL + "/v1/models", headers={"Authorization": "Bearer wrong"}, timeout=10)
    return {
        "chat": chat.json()["choices"][0]["message"]["content"],
        "pieces": [piece["choices"][0]["delta"]["content"] for piece in pieces],
        "type": stream.headers["Content-Type"],
        "wrong_key": [wrong.status_code, wrong.json()["error"]["code"]],
    }


def ask(path: str, body: Any = None, key: str = KEY) -> Any:
    encoded = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(URL + path, encoded, headers)  # noqa: S310  http, on loopback
    return urllib.request.urlopen(request, timeout=10)  # noqa: S310


def by_urllib() -> Any:
    with ask("/v1/chat/completions", CHAT) as answer:
        chat = json.load(answer)["choices"][0]["message"]["content"]
    with ask("/v1/chat/completions", {**CHAT, "stream": True}) as answer:
        events = answer.read().decode().split("\n\n")
    with ask("/v1/models") as answer:
        models = [model["id"] for model in json.load(answer)["data"]]
    try:
        ask("/v1/models", key="wrong")
    except urllib.error.HTTPError as error:
        wrong = [error.status, json.load(error)["error"]["code"]]
    return {"chat": chat, "models": models, "last": events[-2:], "wrong_key": wrong}


print(json.dumps({"requests": by_requests(), "urllib": by_urllib()}))
