"""Errors with status 200 in the shapes of vendors."""

import json

import pytest

from proxy.errors import InvalidResponse
from proxy.wire.endpoints import Shape
from proxy.wire.repairs import Call, EmbeddedError, repair_response, resolve

ERRORS = resolve(["vendor_errors", "true_errors"])


def read(body: str) -> EmbeddedError | None:
    try:
        told = repair_response(ERRORS, Call(Shape.CHAT), body.encode())
    except InvalidResponse:  # Neither a result nor an explicit error.
        return None
    return told if isinstance(told, EmbeddedError) else None


@pytest.mark.parametrize(
    ("body", "status", "message", "kind", "code"),
    [
        # Spark's four shapes
        (
            '{"error":{"message":"invalid param model:x (sid: cha000b)","type":"invalid_request_error",'
            '"param":null,"code":"10005"}}',
            400,
            "invalid param model:x",
            "invalid_request_error",
            "10005",
        ),
        ('{"error":{"code":10012,"message":"engine"}}', 503, "engine", "server_error", "10012"),
        (
            '{"code":11202,"message":"licc limit","sid":"cha1"}',
            429,
            "licc limit",
            "rate_limit_error",
            "11202",
        ),
        (
            '{"code":10013,"msg":"audit","Sid":"x","timeStamp":1}',
            400,
            "audit",
            "invalid_request_error",
            "content_filter",
        ),
        (
            '{"header":{"code":10907,"message":"too many tokens","sid":"x","status":2}}',
            400,
            "too many tokens",
            "invalid_request_error",
            "10907",
        ),
        # Baidu
        ('{"error_code":18,"error_msg":"qps","id":"as-1"}', 429, "qps", "rate_limit_error", "18"),
        ('{"error_code":110,"error_msg":"token invalid"}', 502, "token invalid", "upstream_error", "110"),
        (
            '{"error_code":336003,"error_msg":"bad","result":""}',
            400,
            "bad",
            "invalid_request_error",
            "336003",
        ),
        # MiniMax
        (
            '{"id":"x","choices":null,"base_resp":{"status_code":1002,"status_msg":"rate limit"}}',
            429,
            "rate limit",
            "rate_limit_error",
            "1002",
        ),
        ('{"base_resp":{"status_code":1004,"status_msg":"login"}}', 502, "login", "upstream_error", "1004"),
        (
            '{"base_resp":{"status_code":1026,"status_msg":"in"}}',
            400,
            "in",
            "invalid_request_error",
            "content_filter",
        ),
        ('{"base_resp":{"status_code":1008,"status_msg":"poor"}}', 402, "poor", "insufficient_quota", "1008"),
        # Zhipu
        (
            '{"error":{"code":"1301","message":"不安全"},"request_id":"2"}',
            400,
            "不安全",
            "invalid_request_error",
            "content_filter",
        ),
        ('{"error":{"code":"1302","message":"并发"}}', 429, "并发", "rate_limit_error", "1302"),
        ('{"code":500,"msg":"404 NOT_FOUND","success":false}', 500, "404 NOT_FOUND", "upstream_error", "500"),
        # DashScope, Volcengine, Tencent
        (
            '{"code":"InvalidApiKey","message":"no","request_id":"a"}',
            502,
            "no",
            "upstream_error",
            "InvalidApiKey",
        ),
        (
            '{"error":{"code":"InvalidEndpointOrModel.NotFound","message":"no m","type":"NotFound"}}',
            404,
            "no m",
            "NotFound",
            "InvalidEndpointOrModel.NotFound",
        ),
        (
            '{"Response":{"Error":{"Code":"LimitExceeded.TooManyRequests","Message":"busy"},"RequestId":"r"}}',
            429,
            "busy",
            "rate_limit_error",
            "LimitExceeded.TooManyRequests",
        ),
        # gateways
        (
            '{"object":"error","message":"long","type":"BadRequestError","code":400}',
            400,
            "long",
            "BadRequestError",
            "400",
        ),
        (
            '{"success":false,"errors":[{"code":7003,"message":"route"}],"result":null}',
            502,
            "route",
            "upstream_error",
            "7003",
        ),
        ('{"success":false,"message":"no channel"}', 502, "no channel", "upstream_error", None),
        ('{"detail":"Not authenticated"}', 502, "Not authenticated", "upstream_error", None),
        ('{"error":"model not loaded"}', 502, "model not loaded", "upstream_error", None),
        ('{"error":{"code":401,"message":"no"}}', 502, "no", "upstream_error", "401"),
        ('{"error":{"code":429,"message":"x"}}', 429, "x", "rate_limit_error", "429"),
        ('{"error":{"message":"boom","type":"server_error"}}', 502, "boom", "server_error", None),
        ('{"error":{}, "code": 10012, "message": "m"}', 503, "m", "server_error", "10012"),
        (
            '{"error":{"message":"bad [request id: 7f429aa1]"},"choices":[]}',
            502,
            "bad",
            "upstream_error",
            None,
        ),
        ('{"error":{"other":1}}', 502, "the upstream failed", "upstream_error", None),
        ('{"error":true,"message":"no channel"}', 502, "no channel", "upstream_error", None),
        ('{"error":false,"code":10012,"message":"m"}', 503, "m", "server_error", "10012"),
    ],
)
def test_a_vendors_error_becomes_openais(
    body: str, status: int, message: str, kind: str, code: str | None
) -> None:
    assert read(body) == EmbeddedError(status, message, kind, code)


@pytest.mark.parametrize(
    "body",
    [
        '{"code":0,"message":"Success","sid":"x","choices":[{"message":{}}]}',
        '{"code":0,"message":"Success","sid":"x"}',
        '{"code":"0","msg":"ok"}',
        '{"code":200,"msg":"ok"}',
        '{"code":10012,"message":"beside","choices":[{"message":{"content":"x"}}]}',
        '{"error_code":0,"error_msg":""}',
        '{"base_resp":{"status_code":0,"status_msg":"success"},"choices":null}',
        '{"error":null,"object":"list"}',
        '{"error":{"message":"beside"},"choices":[{"message":{"content":"x"}}]}',
        '{"code":10012}',
        '{"code":true,"message":"x"}',
        '{"detail":"x","id":"y"}',
        '{"success":true,"message":"x"}',
        "{}",
        "[]",
    ],
)
def test_successes_and_results_with_an_error_are_not_errors(body: str) -> None:
    assert read(body) is None


def test_a_long_message_is_cut() -> None:
    told = read(json.dumps({"error": "x" * 10_000}))
    assert told is not None
    assert len(told.message) == 2000


@pytest.mark.parametrize("written", ["null", "false", "0", "0.0", '""', "[]", "{}"])
def test_an_error_member_without_an_error_is_none(written: str) -> None:
    """Some gateways write `"error": false` into every response."""
    assert read(f'{{"error": {written}, "code": 0, "message": "fine"}}') is None
    good = f'{{"choices": [{{"message": {{"content": ""}}, "finish_reason": "stop"}}], "error": {written}}}'
    assert repair_response(ERRORS, Call(Shape.CHAT), good.encode()) == good.encode()
    inside = f'{{"choices": [{{"message": {{"content": ""}}, "error": {written}, "finish_reason": "stop"}}]}}'
    assert repair_response(ERRORS, Call(Shape.CHAT), inside.encode()) == inside.encode()
    heard = f'{{"text": "", "error": {written}}}'.encode()
    assert repair_response(ERRORS, Call(Shape.TRANSCRIPTION), heard) == heard


SUCCESSES = [
    {"code": "000000", "message": "success"},
    {"code": 20000, "msg": "succ"},
    {"code": "00000", "msg": "操作成功"},
    {"code": 1000, "message": "Success."},
    {"code": 1, "msg": "OK"},
    {"code": "SUCCESS", "message": "done"},
    {"statusCode": 200, "errmsg": "done"},
]
"""What vendors and gateways write next to a result."""


@pytest.mark.parametrize("head", SUCCESSES, ids=json.dumps)
@pytest.mark.parametrize(
    ("shape", "result"),
    [
        (Shape.TRANSCRIPTION, {"text": "hi"}),
        (Shape.TRANSCRIPTION, {"text": ""}),
        (Shape.MODERATION, {"data": []}),
        (Shape.CHAT, {"choices": [{"message": {"content": ""}, "finish_reason": "stop"}]}),
    ],
    ids=["transcription", "silence", "nothing", "chat"],
)
def test_a_code_of_success_is_no_error(
    head: dict[str, object], shape: Shape, result: dict[str, object]
) -> None:
    body = json.dumps({**result, **head}).encode()
    assert repair_response(ERRORS, Call(shape), body) == body


@pytest.mark.parametrize("head", [{"code": 10012, "message": "beside"}, {"error_code": 18, "error_msg": "x"}])
@pytest.mark.parametrize("result", [{"text": "hi"}, {"segments": [{"text": "hi"}]}])
def test_a_transcription_next_to_an_error_is_a_result(
    head: dict[str, object], result: dict[str, object]
) -> None:
    body = json.dumps({**result, **head}).encode()
    assert repair_response(ERRORS, Call(Shape.TRANSCRIPTION), body) == body


def test_a_code_of_success_in_one_place_may_be_an_error_in_another() -> None:
    """Zhipu writes 1000 for a failed authentication."""
    told = read('{"code": 1000, "msg": "身份验证失败"}')
    assert told is not None
    assert told.status == 502
