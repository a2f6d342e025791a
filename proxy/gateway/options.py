"""What the gateway can be told: how long tokens live, how fast it answers, where it fails."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class GatewayOptions:
    """One behaviour of the gateway; times in seconds, statuses are HTTP's.

    Args:
        token_ttl: Life of an issued token.
        word_delay: Pause between the pieces of a streamed answer.
        api_key: The one key that `/v1` takes instead of tokens.
        app_id: Client id, the same for both token endpoints.
        app_secret: Its secret.
        first_byte_delay: Wait before the headers of an answer under `/v1`.
        token_delay: Wait before a token endpoint answers.
        token_status: Anything but 200 makes the token endpoints fail with that status.
        status: Anything but 200 makes all of `/v1` fail with that status.
        cut_after: A stream is aborted after this many events, with no last chunk.
        stall_after: A stream goes silent after this many events, until the caller leaves.
        reject_tokens: Every token is refused, issued or not.
        oddity: What every answer of the models is odd in, by its name in `oddities`.
    """

    token_ttl: float = 300.0
    word_delay: float = 0.1
    api_key: str | None = None
    app_id: str = "demo"
    app_secret: str = "demo-secret"  # noqa: S105  a demonstration's, printed in its documents
    first_byte_delay: float = 0.0
    token_delay: float = 0.0
    token_status: int = 200
    status: int = 200
    cut_after: int | None = None
    stall_after: int | None = None
    reject_tokens: bool = False
    oddity: str | None = None
