"""Multipart forms: the model is found and renamed, every other byte stays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.form_body import may_name_model, read_model, replace_form_model

TYPE = b"multipart/form-data; boundary=b"


def part(name: str, value: bytes, more: str = "") -> bytes:
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + value + b"\r\n"


FILE = part("file", b"RIFF\x00\xff\r\n--bmodel", '; filename="a.wav"\r\nContent-Type: audio/wav')
MODEL = part("model", b"whisper-1")
END = b"--b--\r\n"


@pytest.mark.parametrize(
    "body",
    [
        MODEL + FILE + END,
        FILE + MODEL + END,
        FILE + MODEL + b"--b\r\n",
        part("file", bytes(500_000), '; filename="a"') + MODEL + END,
        part("x", b"y") * 150 + MODEL + END,
        b"--b\r\ncontent-type: text/plain\r\ncontent-disposition: form-data;name=model\r\n\r\nwhisper-1\r\n"
        + END,
        part("models", b"x") + part("prompt", b"model") + MODEL + END,
    ],
)
def test_the_model_is_found_and_renamed_alone(body: bytes) -> None:
    assert read_model(TYPE, body) == "whisper-1"
    assert replace_form_model(TYPE, body, "corp\\1") == body.replace(b"whisper-1", b"corp\\1")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no form",
        FILE + END,
        part("models", b"x") + END,
        part("model", b"x", '; filename="x"') + END,
        part("model", b"\xff") + END,
        MODEL + MODEL + END,
        FILE + part("model", b"whi").removesuffix(b"\r\n"),
        b"--b\r\nbroken\r\n\r\nx",
        part("x", b"y") * 4000 + MODEL + END,
        b"\r\n" * 50_000 + MODEL + END,
        b"--b\r\n" + b"a: b\r\n" * 20_000 + MODEL.removeprefix(b"--b\r\n") + END,
    ],
)
def test_a_form_without_one_whole_model_stays(body: bytes) -> None:
    assert read_model(TYPE, body) is None
    assert replace_form_model(TYPE, body, "corp") is body


@pytest.mark.parametrize(
    "content_type",
    [b"multipart/form-data", b"multipart/form-data; boundary=", b"multipart/form-data; boundary=c"],
)
def test_without_its_boundary_nothing_is_found(content_type: bytes) -> None:
    assert read_model(content_type, MODEL + END) is None


@pytest.mark.parametrize(
    "body", [MODEL + MODEL, b"form-data; NAME*=utf-8''model", b'name="mo\\del"; name = model']
)
def test_what_another_might_take_for_a_model_is_seen(body: bytes) -> None:
    assert may_name_model(body)


def test_a_form_of_other_fields_names_no_model() -> None:
    assert not may_name_model(part("purpose", b"a model") + part("file", b"x", '; filename="a"') + END)


@given(st.binary(max_size=60), st.text(max_size=8), st.booleans())
def test_any_model_is_renamed_there_and_back(file: bytes, model: str, first: bool) -> None:  # noqa: FBT001
    if b"--b" in file or "--b" in model:
        return
    parts = [part("model", model.encode()), part("file", file, '; filename="f"')]
    body = b"".join(parts if first else reversed(parts)) + END
    assert read_model(TYPE, body) == model
    there = replace_form_model(TYPE, body, "corp")
    assert read_model(TYPE, there) == "corp"
    assert replace_form_model(TYPE, there, model) == body


@given(st.binary(max_size=200), st.binary(max_size=40))
def test_no_body_breaks_it(body: bytes, content_type: bytes) -> None:
    for declared in (TYPE, content_type):
        model = read_model(declared, b"--b\r\n" + body)
        assert model is None or isinstance(model, str)
