"""From the curl line that gets a token today to a `[credentials.NAME]` block that gets it from now on (pure).

The way of the text: shell_words (a command's words) -> curl_options (what each asks) -> curl_line (the
request) -> secrets_out (secrets become references) -> block (TOML); and reply (where token and life stand).
"""

from proxy.recipe.block import credential_block, exports, request_block
from proxy.recipe.curl_line import CurlRequest, parse_curl
from proxy.recipe.exec_block import STEPS, exec_block, hmac_script
from proxy.recipe.expiry_place import span, with_offset
from proxy.recipe.finding import Finding
from proxy.recipe.outline import outline
from proxy.recipe.phrases import in_chinese, language_of, translator
from proxy.recipe.reply import Reading, parse_reply, read_reply, reading_for
from proxy.recipe.secrets_out import Draft, Variable, take_secrets_out
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
