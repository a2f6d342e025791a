"""`source = "jwt"`: valid claims and keys, and settings that are rejected at the start."""

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.serialization import PrivateFormat

from proxy.secret import MASK, Secret
from proxy.settings import JwtCredential, describe
from tests.settings.conftest import MINIMAL, Load, Problems
from tests.signing_keys import encrypted_pem, pem, pem_for, public_pem

HEAD = f'{MINIMAL}[credentials.corp]\nsource = "jwt"\n'
SIGNED = HEAD + 'key = "s3cret"\n'
ASYMMETRIC = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]


def jwt(load: Load, text: str, **environ: str) -> JwtCredential:
    loaded = load(HEAD + text, environ).credentials["corp"]
    assert isinstance(loaded, JwtCredential)
    return loaded


def told(problems: Problems, text: str, **environ: str) -> list[str]:
    """Return the problems without the section that they are in."""
    return [problem.partition(": credentials.corp.")[2] for problem in problems(text, environ)]


def test_a_key_is_enough(load: Load) -> None:
    loaded = jwt(load, 'key = "s3cret"')

    assert (loaded.algorithm, loaded.key, loaded.key_id) == ("HS256", Secret("s3cret"), None)
    assert (loaded.headers, loaded.claims) == ({}, {})
    assert (loaded.ttl, loaded.unit) == (300, "seconds")
    assert (loaded.issued_claim, loaded.expiry_claim, loaded.jti) == ("iat", "exp", False)


def test_every_key_of_a_jwt_section_is_read(load: Load) -> None:
    loaded = jwt(
        load,
        """\
algorithm = "HS512"
key = "${env:KEY}"
key_id = "k1"
headers = { sign_type = "SIGN", typ = "" }
claims = { api_key = "${env:ID}", deep = { roles = ["a", 1, true] } }
ttl = 60
unit = "milliseconds"
issued_claim = "timestamp"
expiry_claim = "until"
jti = true
""",
        KEY="s3cret",
        ID="s3cret-id",
    )

    assert (loaded.algorithm, loaded.key, loaded.key_id) == ("HS512", Secret("s3cret"), "k1")
    assert loaded.headers == {"sign_type": "SIGN", "typ": ""}
    assert loaded.claims == {"api_key": Secret("s3cret-id"), "deep": {"roles": ("a", 1, True)}}
    assert (loaded.ttl, loaded.unit, loaded.jti) == (60, "milliseconds", True)
    assert (loaded.issued_claim, loaded.expiry_claim) == ("timestamp", "until")


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
def test_every_algorithm_accepts_its_kind_of_key(load: Load, algorithm: str) -> None:
    loaded = jwt(load, f'algorithm = "{algorithm}"\nkey = "${{env:KEY}}"', KEY=pem_for(algorithm))

    assert loaded.key == Secret(pem_for(algorithm))


def unchanged(key: str) -> str:
    """The format in which the key was generated."""
    return key


@pytest.mark.parametrize(
    ("algorithm", "form", "written"),
    [
        ("RS256", PrivateFormat.TraditionalOpenSSL, unchanged),
        ("ES256", PrivateFormat.TraditionalOpenSSL, unchanged),
        ("RS256", PrivateFormat.PKCS8, lambda key: key.replace("\n", "\\n")),
        ("RS256", PrivateFormat.PKCS8, lambda key: key.replace("\n", "\\r\\n")),
        ("RS256", PrivateFormat.PKCS8, lambda key: key.replace("\n", "\r\n")),
        ("RS256", PrivateFormat.PKCS8, lambda key: f"Bag Attributes\n  friendlyName: x\n{key}"),
    ],
    ids=["pkcs1", "sec1", "one-line", "one-line-crlf", "crlf", "bag"],
)
def test_a_key_may_have_any_usual_form(
    load: Load, algorithm: str, form: PrivateFormat, written: Callable[[str], str]
) -> None:
    key = written(pem("p256" if algorithm == "ES256" else "rsa", form))

    assert jwt(load, f'algorithm = "{algorithm}"\nkey = "${{env:KEY}}"', KEY=key).key == Secret(key)


NO_PEM = "is not a private key in PEM form, such as -----BEGIN PRIVATE KEY-----"
SHORT = "which needs RSA with at least 2048 bits"


@pytest.mark.parametrize(
    ("algorithm", "key", "words"),
    [
        ("RS256", lambda: "s3cret", NO_PEM),
        ("RS256", lambda: pem("rsa")[:-200], NO_PEM),
        ("RS256", lambda: public_pem("rsa"), NO_PEM),
        ("RS256", lambda: encrypted_pem("rsa"), "is encrypted: give the key without a pass phrase"),
        ("PS256", lambda: pem("rsa-1024"), f"is not a key for PS256, {SHORT}"),
        ("RS512", lambda: pem("p256"), f"is not a key for RS512, {SHORT}"),
        ("ES256", lambda: pem("p384"), "is not a key for ES256, which needs a key on the curve P-256"),
        ("ES384", lambda: pem("rsa"), "is not a key for ES384, which needs a key on the curve P-384"),
        ("EdDSA", lambda: pem("p256"), "is not a key for EdDSA, which needs Ed25519 or Ed448"),
        ("HS256", lambda: pem("rsa"), "is a PEM, but HS256 signs with a shared secret"),
    ],
)
def test_a_key_that_does_not_fit_is_rejected_at_start(
    problems: Problems, algorithm: str, key: Callable[[], str], words: str
) -> None:
    text = f'{HEAD}algorithm = "{algorithm}"\nkey = "${{env:KEY}}"\n'

    line = text.count("\n")
    assert problems(text, {"KEY": key()}) == [f"x.toml:{line}: credentials.corp.key: {words}"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["key: is required"]),
        ('key = ""', ["key: is empty"]),
        (
            'key = "k"\nalgorithm = "none"',
            [
                'algorithm: must be "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "ES256", '
                '"ES384" or "EdDSA"'
            ],
        ),
        ('key = "k"\nttl = 0', ["ttl: must be greater than 0"]),
        ('key = "k"\nttl = 1.5', ["ttl: must be a whole number"]),
        ('key = "k"\nunit = "s"', ['unit: must be "seconds" or "milliseconds"']),
        ('key = "k"\nclaims = "a"', ["claims: must be a table"]),
        ('key = "k"\nclaims = { a = [nan] }', ["claims.a.0: must be a finite number"]),
        ('key = "k"\nclaims = { exp = 1 }', ["claims.exp: is set by expiry_claim"]),
        ('key = "k"\nclaims = { t = 1 }\nissued_claim = "t"', ["claims.t: is set by issued_claim"]),
        ('key = "k"\nclaims = { jti = "1" }\njti = true', ["claims.jti: is set by jti"]),
        ('key = "k"\nissued_claim = "exp"', ["expiry_claim: is the same as issued_claim"]),
        ('key = "k"\nheaders = { alg = "none" }', ["headers.alg: is set by algorithm"]),
        ('key = "k"\nheaders = { kid = "1" }', ["headers.kid: is set by key_id"]),
        ('key = "k"\nheaders = { b64 = false }', ["headers.b64: is not supported"]),
        ('key = "k"\nheaders = { typ = 1 }', ["headers.typ: must be a string that is not a secret"]),
        (
            'key = "k"\nheaders = { a = [{ b = "${now}" }] }',
            ["headers.a.0.b: cannot contain a reference that is resolved with each request"],
        ),
        (
            'key = "k"\ndefault_ttl = 60',
            ["default_ttl: has no effect here: ttl is the lifetime of the token"],
        ),
        (
            'key = "k"\nclaims = { iat = 1, a = 1 }\nheaders = { alg = "x" }',
            ["claims.iat: is set by issued_claim", "headers.alg: is set by algorithm"],
        ),
        ('key = "k"\nkid = "1"', ['kid: unknown key, did you mean "key_id"?']),
    ],
)
def test_an_invalid_value_is_reported(problems: Problems, text: str, words: list[str]) -> None:
    assert told(problems, HEAD + text) == words


def test_a_claim_that_nothing_else_writes_is_free(load: Load) -> None:
    loaded = jwt(load, 'key = "k"\nissued_claim = ""\nexpiry_claim = ""\nclaims = { exp = 1, jti = "fixed" }')

    assert loaded.claims == {"exp": 1, "jti": "fixed"}


def test_no_secret_is_shown(load: Load, problems: Problems) -> None:
    text = SIGNED + 'claims = { api_key = "${env:ID}", x = "<${env:ID}>" }\n'
    settings = load(text, {"ID": "s3cret"})

    assert "s3cret" not in describe(settings) + repr(settings)
    assert f'key = "{MASK}"' in describe(settings)
    key = pem("rsa-1024")
    shown = " ".join(problems(HEAD + 'key = "${env:KEY}"\nalgorithm = "RS256"', {"KEY": key}))
    assert not any(line in shown for line in key.splitlines()[1:-1])
