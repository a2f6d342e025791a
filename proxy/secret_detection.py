"""Guess which fields hold secrets, by their names and by what their values look like (pure).

It is for fields that others have named: in a request for a token, or in a token endpoint's reply.
"""

import math
import re
from collections import Counter
from collections.abc import Collection
from itertools import pairwise
from typing import Final

from proxy.secret import MASK

_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_JWT: Final = re.compile(r"eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_PRODUCT: Final = re.compile(r"[A-Za-z-]+/[0-9]{1,4}(?:\.[0-9]{1,4}){1,3}")
_RUN: Final = re.compile(r"[A-Za-z0-9]+")
_SECRET_WORD: Final = re.compile(
    r"(?:auth[nz]?|authori[sz]ation|authentication|keys?|tokens?|secrets?|cookies?|pass(?:word|wd|phrase)"
    r"|credentials?)$"
)
_SECRET_IDS: Final = frozenset({"secret", "token", "password", "cookie"})
"""Things whose id alone grants access, such as the `secret_id` of Vault."""
_DENSE: Final = re.compile(r"[A-Za-z0-9+/=_.~-]+")
RANDOM_LENGTH_MIN: Final = 16
_BITS_MIN: Final = 3.0
_PLAIN_NAMES: Final = frozenset(
    """
    accept acceptcharset acceptlanguage actortokentype alg algorithm apiversion appname aud audience
    authmethod authtype clientassertiontype clientname contentlanguage contenttype displayname domain
    enable env environment format grant granttype lang language locale maxtokens method methods mode
    model name origin platform productname protocol provider realm region requestedtokentype resource
    responsetype role roles scope scopes searchmode seed service servicename signaturemethod signmethod
    signtype source stage stream subjecttokentype temperature tokentype topk topp typ type useragent
    version xrequestedwith zone
    """.split()  # noqa: SIM905 - a list of words reads better so
)
_ID_NAMES: Final = frozenset(
    """
    appid applicationid clientid consumerid corpid enterpriseid keyid kid id organizationid orgid projectid
    tenant tenantid user userid username
    """.split()  # noqa: SIM905
)
_CODE_NAMES: Final = frozenset(
    """
    code errcode errno errorcode error err ret retcode returncode resultcode statuscode rspcode respcode
    status state success issuccess ok succeeded result subcode errorsubcode errorcodes
    """.split()  # noqa: SIM905
)
_NUMBER_NAMES: Final = frozenset(
    """
    count createdat deadline duration effectivetime exp expire expireat expiredtime expirein expireon expires
    expiresat expiresin expireson expirestime expiretime expiretimestamp expiration expirationtime expiry
    expirytime extexpiresin iat issuedat leaseduration lifetime maxage nbf notafter notbefore now page port
    refreshexpiresin refreshin refreshtokenexpiresin requesttime retryafter servertime size time timeout
    timestamp tokenexpire tokenexpires total ts ttl validity validto validuntil
    """.split()  # noqa: SIM905
)
_EXPLANATION_NAMES: Final = frozenset(
    """
    desc description detail details errdesc errinfo errmessage errmsg errordesc errordescription errordetail
    errormessage errormsg errorinfo hint info message messages msg reason resultmessage resultmsg retmsg
    returnmsg rspmsg respmsg statusmessage statusmsg statustext submsg subject title tip usermessage
    """.split()  # noqa: SIM905
)
OAUTH_ERRORS: Final = frozenset(  # RFC 6749 4.1.2.1, 5.2; RFC 7009 2.2.1
    """
    access_denied invalid_client invalid_grant invalid_request invalid_scope server_error
    temporarily_unavailable unauthorized_client unsupported_grant_type unsupported_response_type
    unsupported_token_type
    """.split()  # noqa: SIM905
)
_PLAIN_VALUES: Final = OAUTH_ERRORS | frozenset(
    """
    application/json application/x-www-form-urlencoded bearer client_credentials error fail failed failure
    false jwt no none null ok succeeded success successful true yes
    """.split()  # noqa: SIM905
)
_CODE: Final = re.compile(r"[A-Z]{0,8}[-_.]?[0-9]{1,8}")
_NUMBER_OR_DATE: Final = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,9})?|\d{4}-\d\d-\d\d[T ][0-9:.+\- Z]{4,20}")
_ERROR_CODE: Final = re.compile(r"[A-Z]{2,}[-_]?[0-9]{3,}")
# A run of printable characters, without the punctuation at its end.
_WORD_IN_TEXT: Final = re.compile(r"(?<![!-~])(?:[.,;:!?)\]}>'\"]*+[#-&(*+\-/0-9<=@A-Z\[\\^_`a-z{|~])++")
_EXPLANATION_LENGTH_MAX: Final = 300
SECRET_LENGTH_MIN: Final = 4
_MIXED_WORD_LENGTH_MIN: Final = 8
_PLAIN_WORD_LENGTH_MAX: Final = 32
SIGNATURE_WORDS: Final = frozenset({"sign", "sig", "signature", "hmac", "digest", "mac"})


def words_of(name: str) -> list[str]:
    """`appSecret`, `app-secret` and `APP_SECRET` are all `["app", "secret"]`."""
    return [word.lower() for word in _WORD.findall(name)]


def normalized(name: str) -> str:
    """`appSecret`, `app-secret` and `APP_SECRET` are all `appsecret`."""
    return "".join(words_of(name))


def is_harmless(name: str, value: object) -> bool:
    """Whether a value that a request holds under this name can be shown.

    Names of secrets cannot be listed completely (`passcode`, `sid`, `pin`, and others in each language). So
    harmless names are listed, and all other values are treated as secrets.
    """
    if value is None or isinstance(value, bool):
        return True
    whole = normalized(name)
    if isinstance(value, int | float):
        return whole in _NUMBER_NAMES or whole in _PLAIN_NAMES
    if not isinstance(value, str):
        return False
    if not value or value.lower() in _PLAIN_VALUES:
        return True
    if whole in _NUMBER_NAMES:
        return bool(_NUMBER_OR_DATE.fullmatch(value))
    if is_jwt(value) or not value.isprintable():
        return False
    return whole in _ID_NAMES or (whole in _PLAIN_NAMES and not is_random(value))


def is_harmless_reply(name: str, value: object) -> bool:
    """Like `is_harmless`, but for a reply, where `code` is a status. In a request it can be a password."""
    if normalized(name) in _CODE_NAMES:
        return (
            not isinstance(value, str)
            or not value
            or bool(_CODE.fullmatch(value))
            or (value.lower() in _PLAIN_VALUES)
        )
    return is_harmless(name, value)


def is_secret_header(name: str, value: str) -> bool:
    """Whether a header that is set on every request probably holds a secret.

    Its name says so, unless the last word names something public, as in `X-Token-Version`; or a part of its
    value looks random, unless the name is only that of an id.
    """
    words = words_of(name)
    last = words[-1] if words else ""
    is_id = last in _ID_NAMES and _SECRET_IDS.isdisjoint(words)
    if random_parts(value):
        return not is_id
    named = any(_SECRET_WORD.search(word) for word in words)
    return named and not is_id and last not in _PLAIN_NAMES and value.lower() not in _PLAIN_VALUES


def random_parts(value: str) -> list[str]:
    """Return the runs of letters and digits in a value that look random."""
    return [part for part in _RUN.findall(value) if not part.isalpha() and is_random(part)]


def is_explanation(name: str) -> bool:
    """Whether a field of this name explains an error to people."""
    return normalized(name) in _EXPLANATION_NAMES


def mask_explanation(text: str, secrets: Collection[str]) -> str:
    """Mask everything in an explanation that may be a secret.

    Args:
        text: The explanation of an endpoint.
        secrets: Values that were sent to the endpoint, which it may repeat.
    """
    shown = " ".join(text[:_EXPLANATION_LENGTH_MAX].split())
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= SECRET_LENGTH_MIN:
            shown = shown.replace(secret, MASK)
    shown = _WORD_IN_TEXT.sub(lambda word: MASK if _may_be_secret(word[0]) else word[0], shown)
    return f"{shown} ..." if len(text) > _EXPLANATION_LENGTH_MAX else shown


def _may_be_secret(word: str) -> bool:
    """Whether a word looks generated by a machine and is not an error code such as AADSTS7000215."""
    if word == MASK or _ERROR_CODE.fullmatch(word):
        return False
    if any(map(str.isdigit, word)) and any(map(str.isalpha, word)):
        return len(word) >= _MIXED_WORD_LENGTH_MIN
    return len(word) >= _PLAIN_WORD_LENGTH_MAX


def is_jwt(text: str) -> bool:
    """Whether the text has the form of a JSON Web Token (RFC 7519)."""
    return bool(_JWT.fullmatch(text))


def is_uuid(text: str) -> bool:
    """Whether the text has the form of a UUID (RFC 9562)."""
    return bool(_UUID.fullmatch(text))


def is_random(text: str) -> bool:
    """Whether the text looks random: long, without spaces, letters mixed with digits.

    UUIDs do not count, and neither do products with a version (`curl/8.5.0`).
    """
    if len(text) < RANDOM_LENGTH_MIN or not _DENSE.fullmatch(text):
        return False
    if is_uuid(text) or _PRODUCT.fullmatch(text):
        return False
    if is_jwt(text):
        return True
    return _mixes(text) and bits_per_character(text) >= _BITS_MIN


def _mixes(text: str) -> bool:
    letters, digits = sum(map(str.isalpha, text)), sum(map(str.isdigit, text))
    changes = sum(a.isdigit() != b.isdigit() or (a.islower() and b.isupper()) for a, b in pairwise(text))
    return letters >= 4 and (digits >= 2 or len(text) >= 24) and changes >= len(text) // 8


def bits_per_character(text: str) -> float:
    """Return the Shannon entropy of the characters."""
    counts = Counter(text).values()
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts)
