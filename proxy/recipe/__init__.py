"""Convert a curl command that gets a token to a `[credentials.NAME]` block (pure).

The steps: shell_words (words of the command) -> curl_options (its options) -> curl_line (the request) ->
draft (secrets become references) -> block (TOML). `reply` finds the token and its lifetime in the
endpoint's reply.
"""

from proxy.recipe.block import STEPS, credential_block, exec_block, exports, hmac_script, request_block
from proxy.recipe.curl_line import CurlRequest, parse_curl
from proxy.recipe.draft import Draft, Variable, take_secrets_out
from proxy.recipe.expiries import Finding, span, with_offset
from proxy.recipe.outline import outline
from proxy.recipe.phrases import in_chinese, language_of, translator
from proxy.recipe.reply import Reading, parse_reply, read_reply, reading_for
from proxy.recipe.shell_words import ComputedLine, CurlLineError, UnfinishedLine, split_words

__all__ = [
    "STEPS",
    "ComputedLine",
    "CurlLineError",
    "CurlRequest",
    "Draft",
    "Finding",
    "Reading",
    "UnfinishedLine",
    "Variable",
    "credential_block",
    "exec_block",
    "exports",
    "hmac_script",
    "in_chinese",
    "language_of",
    "outline",
    "parse_curl",
    "parse_reply",
    "read_reply",
    "reading_for",
    "request_block",
    "span",
    "split_words",
    "take_secrets_out",
    "translator",
    "with_offset",
]
