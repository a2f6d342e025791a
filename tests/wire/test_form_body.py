"""Multipart forms: the model is found and replaced, and no other byte changes."""

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.http import parse_options_header

from proxy.errors import InvalidRequest
from proxy.wire.form_body import NO_FORM, read_form, replace_form_model

TYPE = b"multipart/form-data; boundary=b"


def part(name: str, value: bytes, more: str = "") -> bytes:
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + value + b"\r\n"


def replaced(body: bytes, name: str) -> bytes:
    """Replace the model."""
    return replace_form_model(read_form(TYPE, body), body, name)


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
def test_only_the_model_is_found_and_replaced(body: bytes) -> None:
    assert read_form(TYPE, body).model == "whisper-1"
    assert replaced(body, "corp\\1") == body.replace(b"whisper-1", b"corp\\1")


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
        part("x", b"y", "\r\nx: " + "y" * 1000) * 100 + MODEL + END,
        part("x", b"y", "; a=b" * 50) * 50 + MODEL + END,
    ],
)
def test_a_form_without_one_whole_model_does_not_change(body: bytes) -> None:
    assert read_form(TYPE, body).model is None
    assert replaced(body, "corp") is body


@pytest.mark.parametrize(
    "content_type",
    [b"multipart/form-data", b"multipart/form-data; boundary=", b"multipart/form-data; boundary=c"],
)
def test_without_its_boundary_nothing_is_found(content_type: bytes) -> None:
    assert read_form(content_type, MODEL + END).model is None


QUOTED = b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\nm\r\n'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no form",
        MODEL + MODEL + END,
        MODEL + FILE + END,  # The file contains something like a delimiter.
        MODEL,
        b"\r\n" + MODEL + END,
        MODEL + END + b"x",
        MODEL + END + MODEL + END,
        QUOTED % b"Model" + END,
        QUOTED % b"model[]" + END,
        QUOTED % b" model" + END,
        QUOTED % b"mo\\del" + END,
        QUOTED % b"mo%64el" + END,
        QUOTED % b'x"; name="model' + END,
        QUOTED % b"model" + b"\r\n" + END,
        QUOTED.replace(b'name="%b"', b"name*=utf-8''model") + END,
        QUOTED.replace(b'name="%b"', b'name*0="mo"; name*1="del"') + END,
        QUOTED.replace(b'name="%b"', b'filename="x; name=model"; name=y') + END,
        QUOTED.replace(b": form", b" : form") % b"model" + END,
        QUOTED.replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n") % b"model" + END,
        QUOTED.replace(b"; name", b";\r\n name") % b"model" + END,
        (QUOTED % b"model").replace(b"\r\n", b"\n") + END,
        part("x", b"y\n--b\n" + MODEL.removeprefix(b"--b\r\n").removesuffix(b"\r\n")) + END,
        part("x", b'y\n--b\nContent-Disposition: form-data; name="model"\n\nm') + END,
        part("x", b"y") * 300 + END,
    ],
)
def test_a_form_that_parsers_may_read_differently_is_not_plain(body: bytes) -> None:
    assert not read_form(TYPE, body).is_plain


@pytest.mark.parametrize(
    "content_type",
    [
        b"multipart/form-data",
        b"multipart/form-data; boundary=b; boundary=c",
        b"multipart/form-data; boundary=c; boundary=b",
        b"multipart/form-data; boundary*=utf-8''b",
        b"multipart/mixed; boundary=b",
        b"multipart/form-data; charset=utf-16; boundary=b",
    ],
)
def test_a_form_with_another_content_type_is_not_plain(content_type: bytes) -> None:
    assert not read_form(content_type, MODEL + END).is_plain


@pytest.mark.parametrize(
    "body",
    [
        MODEL + END,
        MODEL + b"--b--",
        part("purpose", b"a model") + part("file", b"x", '; filename="a"') + END,
        part("file", b"RIFF\r\n--", '; filename="a b.wav"\r\nContent-Type: audio/wav') + MODEL + END,
        part("file", b"", "; filename=\"a\"; filename*=utf-8''%E4%BD%A0") + part("temperature", b"0") + END,
    ],
)
def test_forms_of_clients_are_plain(body: bytes) -> None:
    assert read_form(TYPE, body).is_plain


def test_a_few_odd_headers_do_not_hide_the_model() -> None:
    body = part("file", b"x", "; filename*0=" + "a;" * 500) + MODEL + END
    assert (read_form(TYPE, body).model, read_form(TYPE, body).is_plain) == ("whisper-1", False)


def test_a_model_that_is_much_too_long_is_rejected() -> None:
    with pytest.raises(InvalidRequest, match="more than 1000 characters"):
        read_form(TYPE, part("model", b"m" * 20_000) + END)


def test_a_content_type_that_takes_long_to_read_has_no_boundary() -> None:
    assert read_form(TYPE + b"; a=b" * 100, MODEL + END).model == "whisper-1"
    assert read_form(TYPE + b"; a=b" * 300, MODEL + END) == NO_FORM


PARAMETER = st.tuples(
    st.sampled_from(["; ", ";", " ;", ";;", ""]),
    st.sampled_from(["name", "NAME", "filename", "filename*", "name*", "name*0", "x"]),
    st.sampled_from(["=", " = ", ""]),
    st.sampled_from(
        ["model", '"model"', '"model', '"m\\\\odel"', '"mo;del"', "utf-8''model", "\xaa", "", '""', "a.b-c"]
    ),
).map("".join)


@given(st.sampled_from(["form-data", "Form-Data", "file"]), st.lists(PARAMETER, max_size=4).map("".join))
def test_a_field_is_read_as_werkzeug_reads_it(kind: str, parameters: str) -> None:
    """Plain headers are read without werkzeug."""
    disposition = kind + parameters
    body = f"--b\r\nContent-Disposition: {disposition}\r\n\r\nm\r\n--b--\r\n".encode("latin-1")
    read, options = parse_options_header(disposition)
    is_field = read.lower() == "form-data" and options.get("name") == "model" and "filename" not in options
    assert (read_form(TYPE, body).model == "m") == is_field


def test_httpx_sends_plain_forms() -> None:
    files = {"file": ("你好.wav", b"RIFF", "audio/wav")}
    request = httpx2.Request("POST", "http://x", data={"model": "whisper-1", "language": "zh"}, files=files)
    form = read_form(request.headers["content-type"].encode(), request.read())
    assert (form.model, form.is_plain) == ("whisper-1", True)


@given(st.binary(max_size=60), st.text(max_size=8), st.booleans())
def test_replacing_a_model_twice_restores_the_form(file: bytes, model: str, first: bool) -> None:  # noqa: FBT001
    if b"--b" in file or "--b" in model:
        return
    parts = [part("model", model.encode()), part("file", file, '; filename="f"')]
    body = b"".join(parts if first else reversed(parts)) + END
    assert read_form(TYPE, body).model == model
    there = replaced(body, "corp")
    assert read_form(TYPE, there).model == "corp"
    assert replaced(there, model) == body


@given(st.binary(max_size=200), st.binary(max_size=40))
def test_no_body_breaks_it(body: bytes, content_type: bytes) -> None:
    for declared in (TYPE, content_type):
        model = read_form(declared, b"--b\r\n" + body).model
        assert model is None or isinstance(model, str)
