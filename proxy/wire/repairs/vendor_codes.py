"""Which HTTP status a vendor's own error code stands for."""

from typing import Final

UNSAFE: Final = "content_filter"
"""OpenAI's code for what a content filter stops."""

# A refusal of the proxy's own token is never the caller's 401: it is 502.
_OURS: Final = 502

SPARK: Final[dict[int, int]] = {
    **dict.fromkeys((10003, 10004, 10005, 10163, 10404, 10907), 400),
    **dict.fromkeys((10006, 10007, 11201, 11202, 11203), 429),
    **dict.fromkeys((10008, 10010, 10011, 10012, 10110), 503),
    **dict.fromkeys((10013, 10014, 10019, 10021), 400),
    **dict.fromkeys((10016, 11200), 403),
}
"""https://www.xfyun.cn/doc/spark/%E6%8E%A5%E5%8F%A3%E8%AF%B4%E6%98%8E.html"""
SPARK_UNSAFE: Final = frozenset({10013, 10014, 10019, 10021})

BAIDU: Final[dict[int, int]] = {
    **dict.fromkeys((2, 336100), 503),
    **dict.fromkeys((4, 17, 18, 19, 336501, 336502), 429),
    6: 403,
    **dict.fromkeys((100, *range(336001, 336010), 336103), 400),
    **dict.fromkeys((13, 14, 15, 110, 111), _OURS),
}
"""https://cloud.baidu.com/doc/WENXINWORKSHOP/s/tlmyncueh"""

MINIMAX: Final[dict[int, int]] = {
    1001: 504,
    **dict.fromkeys((1002, 1039, 1041, 2056), 429),
    **dict.fromkeys((1004, 2049), _OURS),
    1008: 402,
    **dict.fromkeys((1026, 1027, 1042, 2013), 400),
}
"""https://platform.minimaxi.com/document/error%20code"""
MINIMAX_UNSAFE: Final = frozenset({1026, 1027})

ZHIPU: Final[dict[int, int]] = {
    **dict.fromkeys((*range(1000, 1005), *range(1110, 1113)), _OURS),
    1113: 402,
    **dict.fromkeys((1210, 1212, 1213, 1214, 1215, 1261, 1301), 400),
    1211: 404,
    1220: 403,
    **dict.fromkeys((1302, 1303, 1304, 1305, 1308), 429),
}
"""https://docs.bigmodel.cn/cn/faq/api-code"""
ZHIPU_UNSAFE: Final = frozenset({1301})

WORDS: Final = (
    ("rate_limit", 429),
    ("ratelimit", 429),
    ("throttl", 429),
    ("quota", 429),
    ("too_many", 429),
    ("toomany", 429),
    ("authentication", _OURS),
    ("unauthorized", _OURS),
    ("api_key", _OURS),
    ("apikey", _OURS),
    ("not_found", 404),
    ("notfound", 404),
    ("permission", 403),
    ("accessdenied", 403),
    ("arrearage", 402),
    ("overloaded", 503),
    ("unavailable", 503),
    ("timeout", 504),
    ("filter", 400),
    ("inspection", 400),
    ("context_length", 400),
    ("invalid", 400),
    ("badrequest", 400),
)
"""What a type or a code in words says, first match first; compared in lower case."""

TYPES: Final = {
    400: "invalid_request_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "invalid_request_error",
    429: "rate_limit_error",
    503: "server_error",
}
"""OpenAI's type by status; any other is the upstream's fault."""
