"""`source = "oauth2"`: the keys of each grant and client authentication, and rejected combinations."""

from collections.abc import Callable

import pytest

from proxy.secret import Secret
from proxy.settings import OAuth2Credential, describe
from proxy.settings.interpolation import LateText
from tests.settings.conftest import MINIMAL, Load, Problems
from tests.signing_keys import certificate_pem, encrypted_pem, pem, pem_for

HEAD = f'{MINIMAL}[credentials.corp]\nsource = "oauth2"\ntoken_url = "https://auth.example/token"\n'
CLIENT = 'client_id = "id"\nclient_secret = "s"\n'
KEY = 'private_key = "${env:KEY}"\n'
BY_KEY = 'auth = "private_key_jwt"\nclient_id = "id"\n' + KEY
BEARER = 'grant = "jwt_bearer"\nauth = "none"\nissuer = "a@b.example"\n' + KEY
EXCHANGE = 'grant = "token_exchange"\nauth = "none"\nsubject_token = "t"\n'
JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"
OTHER = '[credentials.k8s]\nsource = "static"\nvalue = "t"\n'


def oauth2(load: Load, text: str, **environ: str) -> OAuth2Credential:
    loaded = load(HEAD + text, environ).credentials["corp"]
    assert isinstance(loaded, OAuth2Credential)
    return loaded


def told(problems: Problems, text: str, **environ: str) -> list[str]:
    """Return the problems without the section that they are in."""
    return [problem.partition(": credentials.corp.")[2] for problem in problems(HEAD + text, environ)]


def test_client_credentials_with_every_default(load: Load) -> None:
    loaded = oauth2(load, CLIENT)

    assert (loaded.grant, loaded.auth) == ("client_credentials", "basic")
    assert (loaded.client_id, loaded.client_secret) == ("id", Secret("s"))
    assert (loaded.scope, loaded.audience, loaded.resource, loaded.params) == (None, None, None, {})


def test_a_password(load: Load) -> None:
    loaded = oauth2(load, CLIENT + 'grant = "password"\nusername = "u"\npassword = "${env:P}"', P="s3cret")

    assert (loaded.username, loaded.password) == ("u", Secret("s3cret"))


def test_a_public_client_needs_no_secret(load: Load) -> None:
    text = 'grant = "password"\nauth = "none"\nclient_id = "id"\nusername = "u"\npassword = "p"'

    assert oauth2(load, text).client_secret is None


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_the_client_signs_with_its_secret(load: Load, algorithm: str) -> None:
    loaded = oauth2(load, CLIENT + f'auth = "client_secret_jwt"\nalgorithm = "{algorithm}"')

    assert loaded.signing_algorithm == algorithm
    assert (loaded.assertion_ttl, loaded.assertion_audience) == (60, None)


@pytest.mark.parametrize("prefix", ["RS", "PS", "ES"])
@pytest.mark.parametrize("bits", [256, 384, 512])
def test_the_client_signs_with_its_key(load: Load, prefix: str, bits: int) -> None:
    algorithm = f"{prefix}{bits}"
    text = BY_KEY + f'algorithm = "{algorithm}"\nkey_id = "k1"\nassertion_audience = "a"\nassertion_ttl = 30'
    loaded = oauth2(load, text, KEY=pem_for(algorithm))

    assert loaded.private_key == Secret(pem_for(algorithm))
    assert (loaded.signing_algorithm, loaded.key_id) == (algorithm, "k1")
    assert (loaded.assertion_audience, loaded.assertion_ttl) == ("a", 30)


def test_the_algorithm_depends_on_the_signer(load: Load) -> None:
    assert oauth2(load, CLIENT + 'auth = "client_secret_jwt"').signing_algorithm == "HS256"
    assert oauth2(load, BY_KEY, KEY=pem("rsa")).signing_algorithm == "RS256"
    assert oauth2(load, BEARER, KEY=pem("rsa")).signing_algorithm == "RS256"


def test_a_key_and_its_certificate_may_share_one_file(load: Load) -> None:
    both = certificate_pem("rsa") + pem("rsa")
    text = BY_KEY + 'certificate = "${env:KEY}"'

    assert oauth2(load, text, KEY=both).certificate == both
    assert oauth2(load, text, KEY=pem("rsa") + certificate_pem("rsa")).certificate is not None


def test_a_jwt_bearer(load: Load) -> None:
    loaded = oauth2(
        load,
        BEARER + 'subject = "u"\nclaims = { scope = "a b", x = "${env:X}", deep = { y = [1] } }',
        KEY=pem("rsa"),
        X="s3cret",
    )

    assert (loaded.issuer, loaded.subject, loaded.client_id) == ("a@b.example", "u", None)
    assert loaded.claims == {"scope": "a b", "x": Secret("s3cret"), "deep": {"y": (1,)}}


def test_a_token_exchange(load: Load) -> None:
    loaded = oauth2(load, EXCHANGE)
    assert (loaded.subject_token, loaded.subject_token_type) == (Secret("t"), JWT_TYPE)
    assert (loaded.actor_token, loaded.requested_token_type) == (None, None)

    loaded = oauth2(
        load,
        EXCHANGE.replace('"t"', '"${credential:k8s}"')
        + 'subject_token_type = "a"\nactor_token = "${env:A}"\nactor_token_type = "b"\n'
        + 'requested_token_type = "c"\nresource = "https://r.example"\naudience = "d"\n'
        + OTHER,
        A="s3cret",
    )
    assert isinstance(loaded.subject_token, LateText)
    assert [*loaded.subject_token.credentials] == ["k8s"]
    assert (loaded.subject_token_type, loaded.actor_token) == ("a", Secret("s3cret"))
    assert (loaded.actor_token_type, loaded.requested_token_type) == ("b", "c")
    assert (loaded.resource, loaded.audience) == ("https://r.example", "d")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "",
            [
                'client_id: is required for auth = "basic"',
                'client_secret: is required for auth = "basic"',
            ],
        ),
        ('client_id = "a"\nauth = "post"', ['client_secret: is required for auth = "post"']),
        (
            'client_id = "a"\nauth = "client_secret_jwt"',
            ['client_secret: is required for auth = "client_secret_jwt"'],
        ),
        (
            'auth = "private_key_jwt"',
            [
                'client_id: is required for auth = "private_key_jwt"',
                'private_key: is required for auth = "private_key_jwt"',
            ],
        ),
        ('auth = "none"', ['client_id: is required for grant = "client_credentials"']),
        (
            'auth = "none"\ngrant = "password"\nusername = "u"',
            [
                'client_id: is required for grant = "password"',
                'password: is required for grant = "password"',
            ],
        ),
        ('auth = "none"\ngrant = "jwt_bearer"', ['private_key: is required for grant = "jwt_bearer"']),
        (
            'auth = "none"\ngrant = "token_exchange"',
            ['subject_token: is required for grant = "token_exchange"'],
        ),
        ('auth = "none"\ngrant = "token_exchange"\nsubject_token = ""', ["subject_token: is empty"]),
    ],
)
def test_missing_keys_of_a_combination_are_reported(problems: Problems, text: str, words: list[str]) -> None:
    assert told(problems, text) == words


@pytest.mark.parametrize(
    ("text", "key", "users"),
    [
        (CLIENT, 'username = "u"', 'grant = "password"'),
        (CLIENT, 'password = "u"', 'grant = "password"'),
        (CLIENT, KEY, 'auth = "private_key_jwt" or grant = "jwt_bearer"'),
        (CLIENT, 'certificate = "c"', 'auth = "private_key_jwt" or grant = "jwt_bearer"'),
        (
            CLIENT,
            'key_id = "k"',
            'auth = "private_key_jwt" or auth = "client_secret_jwt" or grant = "jwt_bearer"',
        ),
        (
            CLIENT,
            'algorithm = "RS256"',
            'auth = "private_key_jwt" or auth = "client_secret_jwt" or grant = "jwt_bearer"',
        ),
        (
            EXCHANGE,
            "assertion_ttl = 60",
            'auth = "private_key_jwt" or auth = "client_secret_jwt" or grant = "jwt_bearer"',
        ),
        (
            EXCHANGE,
            'assertion_audience = "a"',
            'auth = "private_key_jwt" or auth = "client_secret_jwt" or grant = "jwt_bearer"',
        ),
        (BY_KEY, 'client_secret = "s"', 'auth = "basic" or auth = "post" or auth = "client_secret_jwt"'),
        (EXCHANGE, 'client_secret = "s"', 'auth = "basic" or auth = "post" or auth = "client_secret_jwt"'),
        (BY_KEY, 'issuer = "i"', 'grant = "jwt_bearer"'),
        (BY_KEY, 'subject = "i"', 'grant = "jwt_bearer"'),
        (BY_KEY, 'claims = { a = "b" }', 'grant = "jwt_bearer"'),
        (CLIENT, 'subject_token = "t"', 'grant = "token_exchange"'),
        (CLIENT, 'subject_token_type = "t"', 'grant = "token_exchange"'),
        (CLIENT, 'actor_token = "t"', 'grant = "token_exchange"'),
        (CLIENT, 'requested_token_type = "t"', 'grant = "token_exchange"'),
    ],
)
def test_extra_keys_of_a_combination_are_reported(
    problems: Problems, text: str, key: str, users: str
) -> None:
    name = key.partition(" ")[0]

    assert told(problems, text + key, KEY=pem("rsa")) == [f"{name}: is only used with {users}"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (EXCHANGE + 'actor_token_type = "t"', "actor_token_type: requires actor_token as well"),
        (
            'grant = "jwt_bearer"\nauth = "none"\n' + KEY,
            "issuer: is required if there is no client_id",
        ),
        (
            CLIENT + 'grant = "jwt_bearer"\nauth = "client_secret_jwt"\n' + KEY,
            'auth: cannot be "client_secret_jwt" with grant = "jwt_bearer", which signs with private_key',
        ),
        (
            CLIENT + 'auth = "client_secret_jwt"\nalgorithm = "RS256"',
            'algorithm: must be "HS256", "HS384" or "HS512" for auth = "client_secret_jwt"',
        ),
        (BY_KEY + 'algorithm = "HS256"', "algorithm: cannot be HS256, which does not use private_key"),
        (BEARER + 'claims = { iss = "a" }', "claims.iss: is set by issuer"),
        (BEARER + 'claims = { aud = "a" }', "claims.aud: is set by assertion_audience"),
        (BEARER + 'claims = { jti = "a" }', "claims.jti: is set by the proxy, differently for each request"),
        (BEARER + "claims = { a = inf }", "claims.a: must be a finite number"),
        (CLIENT + 'grant = "implicit"', 'grant: must be "client_credentials", "password", "jwt_bearer" or '
         '"token_exchange"'),
        (CLIENT + "assertion_ttl = 0", "assertion_ttl: must be greater than 0"),
    ],
)  # fmt: skip
def test_an_invalid_value_is_reported(problems: Problems, text: str, words: str) -> None:
    assert told(problems, text, KEY=pem("rsa")) == [words]


NO_PEM = "private_key: is not a private key in PEM form, such as -----BEGIN PRIVATE KEY-----"
NO_RSA = "private_key: is not a key for RS256, which needs RSA with at least 2048 bits"
NO_P521 = "private_key: is not a key for ES512, which needs a key on the curve P-521"
NO_CERTIFICATE = "certificate: is not a certificate in PEM form: -----BEGIN CERTIFICATE-----"
WITH_CERTIFICATE = 'certificate = "${env:OTHER}"'


@pytest.mark.parametrize(
    ("more", "key", "words"),
    [
        ("", lambda: "s3cret", NO_PEM),
        ("", lambda: certificate_pem("rsa"), NO_PEM),
        ("", lambda: pem("p256"), NO_RSA),
        (
            "",
            lambda: encrypted_pem("rsa"),
            "private_key: is encrypted: give the key without a pass phrase",
        ),
        ('algorithm = "ES512"', lambda: pem("p256"), NO_P521),
        ('certificate = "x"', lambda: pem("rsa"), NO_CERTIFICATE),
        (WITH_CERTIFICATE, lambda: pem("rsa"), "certificate: is not the certificate of private_key"),
    ],
)
@pytest.mark.parametrize("user", [BY_KEY, BEARER])
def test_a_bad_key_is_rejected_at_start(
    problems: Problems, user: str, more: str, key: Callable[[], str], words: str
) -> None:
    assert told(problems, user + more, KEY=key(), OTHER=certificate_pem("rsa-other")) == [words]


def test_the_line_of_the_bad_key_is_reported(problems: Problems) -> None:
    text = HEAD + BY_KEY

    assert problems(text, {"KEY": "s3cret"}) == [
        f"x.toml:{text.count(chr(10))}: credentials.corp.private_key: "
        "is not a private key in PEM form, such as -----BEGIN PRIVATE KEY-----"
    ]


def test_no_secret_is_shown(load: Load) -> None:
    environ = {"KEY": pem("rsa"), "S": "s3cret"}
    for text in (
        CLIENT.replace('"s"', '"s3cret"'),
        CLIENT + 'grant = "password"\nusername = "u"\npassword = "s3cret"',
        BY_KEY + 'params = { a = "${env:S}" }',
        BEARER + 'claims = { a = "${env:S}", password = "s3cret" }',
        EXCHANGE.replace('"t"', '"s3cret"') + 'actor_token = "s3cret"',
    ):
        settings = load(HEAD + text, environ)
        shown = describe(settings)
        assert "s3cret" not in shown
        assert not any(line in shown + repr(settings) for line in pem("rsa").splitlines()[1:-1])
