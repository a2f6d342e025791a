"""A secret is no string: only `reveal` returns its value."""

from typing import assert_type

from proxy.secret import Secret


def is_revealed(secret: Secret) -> None:
    assert_type(secret.reveal(), str)
    assert_type(secret.digest(), bytes)
    assert_type(str(secret), str)  # the mask


def is_no_string(secret: Secret) -> None:
    header: str = secret  # type: ignore[assignment]
    "Bearer " + secret  # type: ignore[operator]
    "".join([secret])  # type: ignore[list-item]
    secret.encode()  # type: ignore[attr-defined]
    secret.value = header  # type: ignore[attr-defined]
