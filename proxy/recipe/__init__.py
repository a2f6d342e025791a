"""Convert a curl command that gets a token to a `[credentials.NAME]` block (pure).

The steps: shell_words (words of the command) -> curl_options (its options) -> curl_line (the request) ->
draft (secrets become references) -> block (TOML). `reply` finds the token and its lifetime in the
endpoint's reply.
"""
