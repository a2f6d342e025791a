"""Whether it is certain which model a request runs."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import InvalidRequest
from proxy.wire.form_body import NO_FORM, read_form
from proxy.wire.request_json import NO_FIELDS, read_fields
from proxy.wire.request_model import MODEL_KEYS_MAX, STEP_BYTES, InspectedRequest, find_models, named_models
from tests.endpoints import endpoint_of
from tests.pace import paced
from tests.steps import run_steps

TYPE = "application/json"
CHEAP = '{"model": "cheap"}'


def form(*fields: tuple[str, str]) -> str:
    """Return a form as clients write it."""
    parts = [
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n' for name, text in fields
    ]
    return "".join([*parts, "--b--\r\n"])


FORM = "multipart/form-data; boundary=b"
FILE = form(("model", "cheap"), ("file", "x"))


def seen(
    path: str = "chat/completions",
    content_type: str | None = TYPE,
    body: str = CHEAP,
    *,
    method: str = "POST",
    query: str = "",
    headers: dict[str, str] | None = None,
    outer_model: str | None = None,
    is_whole: bool = True,
) -> InspectedRequest:
    """Return the parts of a request that the proxy inspects."""
    pairs = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    if content_type is not None:
        pairs.append((b"content-type", content_type.encode()))
    is_json = (content_type or "").partition(";")[0].strip().lower() == TYPE
    is_form = (content_type or "").startswith("multipart/form-data")
    return InspectedRequest(
        endpoint=endpoint_of(path, method),
        outer_model=outer_model,
        query=query.encode(),
        headers=pairs,
        body=body.encode(),
        is_whole=is_whole,
        fields=read_fields(body.encode()) if is_json and body else NO_FIELDS,
        form=read_form((content_type or "").encode(), body.encode()) if is_form else NO_FORM,
    )


CERTAIN = {
    "a chat": (seen(), ["cheap"]),
    "a stream": (seen(body='{"stream": true, "model": "cheap", "messages": []}'), ["cheap"]),
    "utf-8": (seen(content_type="application/json; charset=utf-8"), ["cheap"]),
    "quoted utf-8": (seen(content_type='Application/JSON;charset="UTF-8"'), ["cheap"]),
    "embeddings": (seen("embeddings", body='{"model": "cheap", "input": "x"}'), ["cheap"]),
    "escapes that hide nothing": (
        seen(body='{"model": "cheap", "x": "\\\\u0041 \\u4f60\\u003c"}'),
        ["cheap"],
    ),
    "a key deep inside": (
        seen(body='{"model": "cheap", "metadata": {"model": "x", "Model": "y"}}'),
        ["cheap"],
    ),
    "a tool's schema": (
        seen(body='{"model": "cheap", "tools": [{"parameters": {"properties": {"model": {}}}}]}'),
        ["cheap"],
    ),
    "a harmless query": (seen(query="api-version=1&x=model"), ["cheap"]),
    "identity": (seen(headers={"content-encoding": "identity", "x-title": "model"}), ["cheap"]),
    "a form": (seen("audio/transcriptions", FORM, FILE), ["cheap"]),
    "JSON for a form": (seen("images/edits"), ["cheap"]),
    "a list of models": (seen("models", None, "", method="GET"), []),
    "one model": (seen("models/cheap", None, "", method="GET", outer_model="cheap"), ["cheap"]),
    "a file": (seen("files", FORM, form(("purpose", "batch"), ("file", "x"))), []),
    "a stored response": (seen("responses/r-1", None, "", method="GET"), []),
    "a response": (
        seen(
            "responses", body='{"model": "cheap", "tools": [{"properties": {"model": {"type": "string"}}}]}'
        ),
        ["cheap", "cheap"],
    ),
    "a response with a tool that runs a model": (
        seen("responses", body='{"model": "cheap", "tools": [{"model": "dear"}]}'),
        ["cheap", "cheap", "dear"],
    ),
}


@pytest.mark.parametrize("name", CERTAIN)
def test_the_models_of_plain_requests_are_certain(name: str) -> None:
    request, models = CERTAIN[name]
    found = run_steps(find_models(request))
    assert (found.ambiguity, [*found.names]) == (None, models)


DOUBTFUL = {
    "no model": seen(body="{}"),
    "no body": seen(body=""),
    "a null": seen(body='{"model": null}'),
    "a list": seen(body='{"model": ["cheap"]}'),
    "another case beside it": seen(body='{"model": "cheap", "Model": "dear"}'),
    "another case before it": seen(body='{"MODEL": "dear", "model": "cheap"}'),
    "another case alone": seen(body='{"Model": "cheap"}'),
    "another case with an escape": seen(body='{"model": "cheap", "\\u004dodel": "dear"}'),
    "a list of models": seen(body='{"model": "cheap", "models": ["dear"]}'),
    "fallbacks": seen(body='{"model": "cheap", "fallbacks": ["dear"]}'),
    "fallbacks by a long name": seen(
        body='{"model": "cheap", "context_window_fallback_dict": {"cheap": "dear"}}'
    ),
    "a very long name": seen(body='{"model": "cheap", "%smodel": "dear"}' % ("x" * 900)),
    "options that a gateway merges": seen(body='{"model": "cheap", "extra_body": {"model": "dear"}}'),
    "a gateway's own options": seen(body='{"model": "cheap", "litellm_params": {"model": "dear"}}'),
    "a gateway's own models": seen(body='{"model": "cheap", "user_config": {"x": 1}}'),
    "a gateway's own routes": seen(body='{"model": "cheap", "router_settings_override": {"x": 1}}'),
    "a gateway's preset": seen(body='{"model": "cheap", "preset": "dear"}'),
    "a gateway's header": seen(headers={"x-portkey-config": '{"override_params": {"a": 1}}'}),
    "an adapter": seen(body='{"model": "cheap", "adapter_id": "dear"}'),
    "an adapter's source": seen(body='{"model": "cheap", "adapter_source": "hub"}'),
    "adapters in a folder": seen(body='{"model": "cheap", "adapters": "/srv/dear"}'),
    "a LoRA adapter": seen(body='{"model": "cheap", "lora_path": "dear"}'),
    "a LoRA adapter of llama.cpp": seen(body='{"model": "cheap", "lora": [{"id": 0, "scale": 1.0}]}'),
    "a LoRA adapter of TensorRT-LLM": seen(body='{"model": "cheap", "lora_request": {"lora_name": "dear"}}'),
    "a LoRA adapter in another case": seen(body='{"model": "cheap", "LoRA_Path": "dear"}'),
    "a LoRA adapter in a header": seen(headers={"x-lora": "dear"}),
    "a LoRA adapter in the query": seen(query="lora_path=dear"),
    "a LoRA adapter in a form": seen(
        "audio/transcriptions", FORM, form(("model", "cheap"), ("file", "x"), ("lora_path", "dear"))
    ),
    "fallbacks in a form": seen(
        "audio/transcriptions", FORM, form(("model", "cheap"), ("file", "x"), ("fallbacks", "dear"))
    ),
    "a file of weights in a form": seen(
        "images/edits",
        FORM,
        form(("model", "cheap"), ('lora"; filename="dear', "x")),
    ),
    "a key that is a text": seen(body='{"model": "cheap", "my dear model": 1}'),
    "a header that is a text": seen(headers={"x-dear-model": "1"}),
    "a field that is a text": seen(
        "audio/transcriptions", FORM, form(("model", "cheap"), ("my dear model", "x"))
    ),
    "an engine": seen(body='{"model": "cheap", "engine": "dear"}'),
    "a deployment": seen(body='{"model": "cheap", "deployment_id": "dear"}'),
    "a model id": seen(body='{"model": "cheap", "model_id": "dear"}'),
    "an escaped model id": seen(body='{"model": "cheap", "mod\\u0065l_id": "dear"}'),
    "a repeated key": seen(body='{"model": "cheap", "model": "dear"}'),
    "a key repeated with an escape": seen(body='{"model": "cheap", "mod\\u0065l": "dear"}'),
    "a key with an escape": seen(body='{"mod\\u0065l": "cheap"}'),
    "two types": seen(headers={"content-type": "application/json"}),
    "two types that differ": seen(headers={"content-type": "multipart/form-data; boundary=b"}),
    "no type": seen(content_type=None),
    "plain text": seen(content_type="text/plain"),
    "a form of JSON": seen(content_type=FORM),
    "a form where none is taken": seen(content_type=FORM, body=FILE),
    "form fields": seen(content_type="application/x-www-form-urlencoded", body="model=cheap"),
    "two types in one": seen(content_type="application/json, multipart/form-data; boundary=b"),
    "utf-16": seen(content_type="application/json; charset=utf-16"),
    "a boundary": seen(content_type="application/json; boundary=b"),
    "gzip": seen(headers={"content-encoding": "gzip"}),
    "two encodings": seen(headers={"content-encoding": "identity, gzip"}),
    "a header": seen(headers={"x-model": "dear"}),
    "a deployment's header": seen(headers={"azureml-model-deployment": "dear"}),
    "another method": seen(headers={"x-http-method-override": "PUT"}),
    "another method on a list": seen(
        "models", None, "", method="GET", headers={"x-http-method-override": "POST"}
    ),
    "a query": seen(query="model=dear"),
    "an encoded query": seen(query="a=1&mo%64el=dear"),
    "a query's other case": seen(query="MODEL=dear"),
    "a query after a semicolon": seen(query="a=1;model=dear"),
    "a method in the query": seen(query="_method=PUT"),
    "a form with two": seen("audio/transcriptions", FORM, form(("model", "cheap"), ("model[]", "dear"))),
    "a form with another case": seen("audio/transcriptions", FORM, form(("model", "cheap"), ("Model", "x"))),
    "a form without one": seen("images/variations", FORM, form(("image", "x"))),
    "a form with a preamble": seen("audio/transcriptions", FORM, '{"model": "dear"}\r\n' + FILE),
    "a form that goes on": seen("audio/transcriptions", FORM, FILE, is_whole=False),
    "a path with parameters": seen("models/cheap;x", None, "", method="GET", outer_model="cheap;x"),
    "a response that hides a tool's model": seen(
        "responses", body='{"model": "cheap", "tools": [{"mod\\u0065l": "dear"}]}'
    ),
    "a response with a list of models inside": seen(
        "responses", body='{"model": "cheap", "tools": [{"models": ["dear"]}]}'
    ),
    "a batch": seen("batches", body='{"endpoint": "/v1/chat/completions", "input_file_id": "f"}'),
    "a run": seen("threads/runs"),
    "a run of a thread": seen("threads/t-1/runs"),
    "an engine's path": seen("engines/dear/completions", outer_model="dear"),
    "a deployment's path": seen("deployments/dear/chat/completions", outer_model="dear"),
    "a method of a model": seen("models/dear:generateContent"),
    "an unknown path": seen("some/new/api"),
    "a WebSocket's path without a model": seen("realtime", None, "", method="GET"),
    "a WebSocket's path with two": seen(
        "realtime", None, "", method="GET", query="model=cheap&model=dear", outer_model="cheap"
    ),
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_a_doubt_about_the_model_has_a_reason(name: str) -> None:
    reason = run_steps(find_models(DOUBTFUL[name])).ambiguity
    assert reason is not None
    assert "dear" not in reason


@pytest.mark.parametrize(
    "body",
    [
        '{"model": "cheap", "model": "dear"}',
        '{"model": "cheap", "mod\\u0065l": "dear"}',
        '{"m\\u006fdel": "cheap", "\\u006dodel": "dear"}',
        '{"stream": false, "stream": true}',
        '{"stream": false, "strea\\u006d": true}',
        '{"model": "cheap"' + ', "Top_N": 1' * 40 + ', "model": "dear"}',
    ],
)
def test_a_repeated_key_is_seen(body: str) -> None:
    assert read_fields(body.encode()).repeated in {"model", "stream"}


@pytest.mark.parametrize("name", ["model", "stream"])
def test_a_repeated_field_of_a_form_is_seen(name: str) -> None:
    assert read_form(FORM.encode(), form((name, "a"), ("x", "y"), (name, "b")).encode()).repeated == name


@pytest.mark.parametrize("body", ['{"model": "a", "x": {"model": "b", "stream": 1}, "stream": true}', CHEAP])
def test_a_key_that_occurs_once_is_not_repeated(body: str) -> None:
    assert read_fields(body.encode()).repeated is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["model", "Model", "mod\\u0065l", "models", "x", "stream", "engine"]),
            st.sampled_from(['"cheap"', '"dear"', "null", "true", '["dear"]', '{"model": "dear"}']),
        ),
        max_size=5,
    )
)
def test_all_parsers_read_the_same_model_if_it_is_certain(members: list[tuple[str, str]]) -> None:
    body = "{" + ", ".join(f'"{key}": {value}' for key, value in members) + "}"
    request = seen(body=body)
    found = run_steps(find_models(request))
    if request.fields.repeated is not None or found.ambiguity is not None:
        return
    first, last, caseless = dict[str, object](), json.loads(body), dict[str, object]()
    for key, value in json.loads(body, object_pairs_hook=list):
        first.setdefault(key, value)
        caseless[key.lower()] = value
    assert [first["model"]] == [last["model"]] == [caseless["model"]] == [*found.names]


@pytest.mark.parametrize(
    ("text", "models"),
    [
        ('{"type": "session.update", "session": {"model": "dear"}}', ["dear"]),
        ('{"session": {"audio": {"input": {"transcription": {"model": "whisper-1"}}}}}', ["whisper-1"]),
        ('{"session": {"Model" : "a", "model_id": "b"}}', ["a", "b"]),
        ('{"session": {"tools": [{"properties": {"model": {"type": "string"}}}]}}', []),
        ('{"text": "the \\"model\\": \\"dear\\""}', []),
        ('{"session": {"model": null}}', []),
        ('{"session": {"models": ["a"]}}', None),
        ('{"session": {"mod\\u0065l": "dear"}}', None),
        ('{"session": {"\\u004dODEL": "dear"}}', None),
        ('{"session": {"model": "a', None),
        ('{"session": {"model":', None),
        ('{"path": "C:\\\\u0061", "model": "a"}', ["a"]),
        ('{"path": "C:\\\\\\u0061", "model": "a"}', None),
        ("{" + '"model": "a",' * MODEL_KEYS_MAX, ["a"] * MODEL_KEYS_MAX),
        ("{" + '"model": "a",' * (MODEL_KEYS_MAX + 1), None),
        ("", []),
        ("\x00\xff", []),
    ],
)
def test_the_models_in_a_text_are_found_at_any_depth(text: str, models: list[str] | None) -> None:
    assert run_steps(named_models(text.encode("latin-1"))) == models


@pytest.mark.parametrize(
    ("text", "models"),
    [
        (b'"model": "dear"', ["dear"]),
        (b'"%b-MODEL-%b"  :\n"dear"' % (b"x" * 90, b"y" * 63), ["dear"]),
        (rb'"text": "\\u0041", "model": "dear"', ["dear"]),
        (rb'"text": "\\\u0041"', None),
        (rb'"mod\u0065l": "dear"', None),
        (rb'"text": "\"model\": \"dear\""', []),
    ],
)
@pytest.mark.parametrize("filling", [b" ", rb"\\", b"model "], ids=["spaces", "backslashes", "words"])
def test_the_models_in_a_long_text_are_found_wherever_a_step_ends(
    text: bytes, models: list[str] | None, filling: bytes
) -> None:
    for place in range(STEP_BYTES - len(text) - 2, STEP_BYTES + 2):
        before = b'{"a":"' + b" " * (place % len(filling))
        before += filling * ((place - len(before)) // len(filling))
        assert run_steps(named_models(before + b'",' + text + b"}")) == models


@pytest.mark.parametrize("unit", [b"model ", b'"model",', b"m", b"\\\\", rb"\u00e9", rb"\\u0041", b"\\"])
def test_a_step_of_the_search_for_models_takes_milliseconds(unit: bytes) -> None:
    """The event loop does nothing else meanwhile."""
    text = b'{"a":"' + unit * (4 * STEP_BYTES // len(unit))

    def longest_step() -> float:
        steps, longest = named_models(text), 0.0
        while True:
            since = time.thread_time()
            try:
                next(steps)
            except StopIteration:
                return longest
            finally:
                longest = max(longest, time.thread_time() - since)

    assert min(longest_step() for _ in range(3)) < paced(0.03)


@pytest.mark.parametrize("unit", ["model", 'model"', '"model":', '"model":"', "\\", '"', "model:", "\\u00"])
def test_the_search_for_models_takes_linear_time(unit: str) -> None:
    text = (unit * ((1 << 20) // len(unit))).encode()
    since = time.process_time()
    run_steps(named_models(text))
    assert time.process_time() - since < paced(1)


def test_other_bodies_than_json_are_rejected_earlier() -> None:
    with pytest.raises(InvalidRequest):
        seen(body="[]")
