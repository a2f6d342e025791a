"""Replies of token endpoints as vendors document them, at a fixed time and with invented tokens."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

from proxy.credentials.sources.reply import Reply

NOW = 1_764_000_000.0
DATE = "Mon, 24 Nov 2025 16:00:00 GMT"
RANDOM = "t-g1044ghJRUIJJ5ELHNLX2YFQ3LKBOXYVLCJPEYBA"


def iso(after: float) -> str:
    """Return a time in UTC."""
    return datetime.fromtimestamp(NOW + after, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def jwt(after: float = 300) -> str:
    """Return an unsigned JWT that expires this many seconds after the reply."""
    parts = ({"alg": "HS256", "typ": "JWT"}, {"iat": NOW, "exp": NOW + after, "sub": "svc"})
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, "c2lnbmF0dXJlLWNhbmFyeQ"])


def reply(body: Any, headers: dict[str, str] | None = None) -> Reply:
    """Return the reply as it is received over HTTP."""
    text = body if isinstance(body, str) else json.dumps(body)
    parsed = None if isinstance(body, str) else json.loads(text)
    return Reply(parsed, {"date": DATE, **(headers or {})}, NOW, text)


BAIDU = {
    "refresh_token": "25.b55fe1d287227ca97aab219bb249b8ab.315360000.1798284651.282335-8574074",
    "expires_in": 2592000,
    "session_key": "9mzdDZXu3dENdFZQurfg0Vz8slgSgvvOAUebNFzyzcpQ5EnbxbF+hfG9DQkpUVQdh4p6HbQ=",
    "access_token": "24.6c5e1ff107f0e8bcef8c46d3424a0e78.2592000.1485516651.282335-8574074",
    "scope": "public wise_adapt",
    "session_secret": "dfac94a3489fe9fca7c3221cbf7525ff",
}
FEISHU = {"code": 0, "msg": "ok", "tenant_access_token": RANDOM, "expire": 7200}
FEISHU_APP = {**FEISHU, "app_access_token": RANDOM}
WECHAT = {"access_token": "75_kVb3dKkB2e8Xq0sE7pTn5Yw", "expires_in": 7200}
WECOM = {"errcode": 0, "errmsg": "ok", "access_token": "accesstoken000001aBc9dEf8", "expires_in": 7200}
HUAWEI = {
    "token": {
        "expires_at": iso(86400),
        "issued_at": iso(0),
        "methods": ["password"],
        "catalog": [],
        "roles": [{"name": "te_admin", "id": "0"}],
        "project": {"id": "aa2d97d7e62c4b7da3ffdfc11551f878", "name": "cn-north-4"},
        "user": {"id": "7116d09f88fa41908676fdd4b039e95b", "password_expires_at": ""},
    }
}
IBM = {
    "access_token": "eyJraWQ.notquite",
    "refresh_token": "not_supported",
    "token_type": "Bearer",
    "expires_in": 3600,
    "expiration": int(NOW) + 3600,
    "scope": "ibm openid",
}
VAULT = {
    "request_id": "0315fa9b-9f7e-4e2d-8a2e-2f0f6b0a9a11",
    "lease_id": "",
    "renewable": False,
    "lease_duration": 0,
    "data": None,
    "warnings": None,
    "auth": {
        "client_token": "hvs.CAESIJ4v3kP9xQ2mN8bT5wY7zA1cD3eF6gH0iJ2kL4",
        "accessor": "0e9e354a-520f-df04-6867-ee81cae3d42d",
        "policies": ["default"],
        "metadata": {"role_name": "llm"},
        "lease_duration": 2764800,
        "renewable": True,
    },
}
KEYCLOAK = {
    "access_token": jwt(300),
    "expires_in": 300,
    "refresh_expires_in": 0,
    "token_type": "Bearer",
    "not-before-policy": 0,
    "scope": "profile email",
}
AZURE_V1 = {
    "token_type": "Bearer",
    "expires_in": "3599",
    "ext_expires_in": "3599",
    "expires_on": str(int(NOW) + 3599),
    "not_before": str(int(NOW) - 300),
    "access_token": jwt(3599),
    "refresh_in": 1800,
}
COMPANY = {
    "code": 0,
    "message": "success",
    "requestId": "8c1fd1f3b3f24f0c9a1f",
    "data": {"token": "Xk3jd93kdk39fkdKDK39dk30fkd39", "expireTime": int((NOW + 300) * 1000)},
}
