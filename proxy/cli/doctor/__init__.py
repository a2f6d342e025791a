"""`doctor`: walk the whole path of a request, and explain where it breaks.

walk       the order of the checks, and which of them depend on which
network    DNS, the TCP connection, TLS
tokens     a credential: its token endpoint, the token's lifetime, the clocks
api        sends requests, and notes when each part of a response arrives
models, chat, embeddings
           judge the responses of an API, among them RAGFlow's own checks
arrivals   judges by arrival times whether something buffers a stream (pure)
findings   what the checks found; `catalogue` has the words in both languages
report     prints findings on a terminal, as plain text or as JSON
"""
