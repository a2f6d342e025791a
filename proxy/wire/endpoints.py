"""The one table of API endpoints: every fact that the proxy needs to know about a path.

Routing, access, limits, usage, relay, repairs, heartbeats and documentation read this table and nothing else.
A path becomes an endpoint exactly once, in `proxy.wire.paths.find_target`; everything behind it works with
the `Endpoint` and never looks at the path again.

https://platform.openai.com/docs/api-reference, and the paths of Cohere and Jina for `rerank`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum
from typing import Final, NamedTuple

COHERE_RERANK: Final = "v2/rerank"
"""Where Cohere's client posts; its body and its answer are those of `rerank`."""


class ModelPlace(Enum):
    """Where a request names the model that it runs."""

    NONE = "none"
    """Nowhere: the request runs no model."""
    BODY = "body"
    """In `model`, a field of the JSON body or of the form."""
    PATH = "path"
    """In the path, as its last part."""
    QUERY = "query"
    """In `model`, a parameter of the query."""
    HIDDEN = "hidden"
    """The request may run a model that it does not name, or names where the proxy does not look."""


class StreamEnd(Enum):
    """How a complete event stream ends."""

    FINISH = "finish"
    """With `[DONE]`, or at least with a choice that has a `finish_reason`."""
    RESPONSE = "response"
    """With `response.completed`, `.incomplete` or `.failed`; errors are events named `error`."""
    CLOSE = "close"
    """With the end of the body alone."""


class Charge(Enum):
    """What an answer costs of a token budget where the upstream does not report its usage."""

    NOTHING = "nothing"
    """No model runs."""
    PROMPT = "prompt"
    """The request alone: the answer is vectors or scores."""
    TEXT = "text"
    """The request and the text of the answer."""
    MEDIA = "media"
    """The request, and a flat amount for an image, a sound or a video."""


class Shape(StrEnum):
    """The kind of request and answer that named repairs know."""

    CHAT = "chat/completions"
    COMPLETION = "completions"
    EMBEDDINGS = "embeddings"
    MODELS = "models"
    MODERATION = "moderations"
    RERANK = "rerank"
    SPEECH = "audio/speech"
    TRANSCRIPTION = "audio/transcriptions"
    TRANSLATION = "audio/translations"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """What the proxy knows about the requests to some paths."""

    name: str
    """The path below the version, without ids: how settings, logs and metrics call it."""
    paths: tuple[str, ...] = ()
    """Patterns of segments, the name alone by default: `*` is any one segment and `**` any rest. `{model}`
    and `{model}**` are the same where the id of a model is expected."""
    methods: frozenset[str] = frozenset()
    """Empty: any method that is not in another row."""
    model: ModelPlace = ModelPlace.HIDDEN
    form: bool = False
    """Whether the body may be a multipart form instead of JSON."""
    stream: StreamEnd | None = None
    """How an event stream of it ends; None where it never sends one."""
    heartbeats: bool = False
    """Whether `"stream": true` in the JSON body asks for an event stream, so that comments may precede it."""
    charge: Charge = Charge.TEXT
    shape: Shape | None = None
    """None where no named repair applies."""
    limited: bool = False
    """Whether a key that is limited to models may use it, unless `keys[].endpoints` says otherwise."""
    bare: bool = True
    """Whether it is also served without `/v1`."""
    websocket: bool = False
    nested_models: bool = False
    """Whether tools in the body run models of their own, which they name there."""

    def is_in(self, names: Iterable[str]) -> bool:
        """Whether one of these names is that of this endpoint or of one above it."""
        return any(self.name == name or self.name.startswith(name + "/") for name in names)


GET: Final = frozenset({"GET"})
POST: Final = frozenset({"POST"})

CHAT_COMPLETIONS: Final = Endpoint(
    name="chat/completions",
    methods=POST,
    model=ModelPlace.BODY,
    stream=StreamEnd.FINISH,
    heartbeats=True,
    shape=Shape.CHAT,
    limited=True,
)
EMBEDDINGS: Final = Endpoint(
    name="embeddings",
    methods=POST,
    model=ModelPlace.BODY,
    charge=Charge.PROMPT,
    shape=Shape.EMBEDDINGS,
    limited=True,
)
RERANK: Final = Endpoint(
    name="rerank",
    methods=POST,
    model=ModelPlace.BODY,
    charge=Charge.PROMPT,
    shape=Shape.RERANK,
    limited=True,
)
MODELS: Final = Endpoint(
    name="models",
    methods=GET,
    model=ModelPlace.NONE,
    charge=Charge.NOTHING,
    shape=Shape.MODELS,
    limited=True,
)
REALTIME: Final = Endpoint(
    name="realtime",
    methods=GET,
    model=ModelPlace.QUERY,
    stream=StreamEnd.CLOSE,
    limited=True,
    websocket=True,
)


def _stored(name: str, *, limited: bool = False) -> Endpoint:
    """What only stores and lists things, with all that is below it."""
    return Endpoint(
        name=name,
        paths=(name, f"{name}/**"),
        model=ModelPlace.NONE,
        charge=Charge.NOTHING,
        limited=limited,
    )


def _opaque(name: str, *, bare: bool = True) -> Endpoint:
    """What runs models that its requests do not show, with all that is below it."""
    return Endpoint(name=name, paths=(name, f"{name}/**"), stream=StreamEnd.CLOSE, bare=bare)


TABLE: Final = (
    CHAT_COMPLETIONS,
    Endpoint(  # stored completions
        name="chat/completions",
        paths=("chat/completions", "chat/completions/*", "chat/completions/*/messages"),
        methods=frozenset({"GET", "DELETE"}),
        model=ModelPlace.NONE,
        charge=Charge.NOTHING,
        limited=True,
    ),
    Endpoint(
        name="completions",
        methods=POST,
        model=ModelPlace.BODY,
        stream=StreamEnd.FINISH,
        heartbeats=True,
        shape=Shape.COMPLETION,
        limited=True,
    ),
    EMBEDDINGS,
    RERANK,
    Endpoint(
        name="moderations",
        methods=POST,
        model=ModelPlace.BODY,
        charge=Charge.PROMPT,
        shape=Shape.MODERATION,
        limited=True,
    ),
    MODELS,
    Endpoint(
        name="models",
        paths=("models/{model}**",),
        methods=GET,
        model=ModelPlace.PATH,
        charge=Charge.NOTHING,
        limited=True,
    ),
    Endpoint(name="models", paths=("models/{model}**",), stream=StreamEnd.CLOSE),
    Endpoint(
        name="responses",
        methods=POST,
        model=ModelPlace.BODY,
        stream=StreamEnd.RESPONSE,
        heartbeats=True,
        nested_models=True,
        limited=True,
    ),
    Endpoint(
        name="responses",
        paths=("responses/compact", "responses/input_tokens"),
        methods=POST,
        model=ModelPlace.BODY,
        nested_models=True,
        limited=True,
    ),
    Endpoint(  # stored responses; `?stream=true` sends one again
        name="responses",
        paths=("responses/*", "responses/*/input_items", "responses/*/cancel"),
        methods=frozenset({"GET", "DELETE"}),
        model=ModelPlace.NONE,
        stream=StreamEnd.RESPONSE,
        charge=Charge.NOTHING,
        limited=True,
    ),
    Endpoint(
        name="responses",
        paths=("responses/*/cancel",),
        methods=POST,
        model=ModelPlace.NONE,
        charge=Charge.NOTHING,
        limited=True,
    ),
    Endpoint(
        name="audio/speech",
        methods=POST,
        model=ModelPlace.BODY,
        stream=StreamEnd.CLOSE,
        charge=Charge.MEDIA,
        shape=Shape.SPEECH,
        limited=True,
    ),
    Endpoint(
        name="audio/transcriptions",
        methods=POST,
        model=ModelPlace.BODY,
        form=True,
        stream=StreamEnd.CLOSE,
        shape=Shape.TRANSCRIPTION,
        limited=True,
    ),
    Endpoint(
        name="audio/translations",
        methods=POST,
        model=ModelPlace.BODY,
        form=True,
        shape=Shape.TRANSLATION,
        limited=True,
    ),
    _stored("audio/voices"),
    _stored("audio/voice_consents"),
    Endpoint(
        name="images/generations",
        methods=POST,
        model=ModelPlace.BODY,
        stream=StreamEnd.CLOSE,
        charge=Charge.MEDIA,
        limited=True,
    ),
    Endpoint(
        name="images/edits",
        methods=POST,
        model=ModelPlace.BODY,
        form=True,
        stream=StreamEnd.CLOSE,
        charge=Charge.MEDIA,
        limited=True,
    ),
    Endpoint(
        name="images/variations",
        methods=POST,
        model=ModelPlace.BODY,
        form=True,
        charge=Charge.MEDIA,
        limited=True,
    ),
    Endpoint(
        name="videos",
        methods=POST,
        model=ModelPlace.BODY,
        form=True,
        charge=Charge.MEDIA,
        limited=True,
    ),
    Endpoint(
        name="videos",
        paths=("videos", "videos/**"),
        methods=frozenset({"GET", "DELETE"}),
        model=ModelPlace.NONE,
        charge=Charge.NOTHING,
        limited=True,
    ),
    Endpoint(name="videos", paths=("videos/**",), methods=POST, charge=Charge.MEDIA),
    _stored("files", limited=True),
    _stored("uploads", limited=True),
    _stored("containers"),
    _stored("content_provenance_checks"),
    _stored("conversations"),
    _stored("organization"),
    _stored("projects"),
    _stored("safety"),
    _stored("skills"),
    _stored("vaults"),
    _stored("vector_stores"),
    _stored("webhook_endpoints"),
    _stored("webhook_event_types"),
    REALTIME,
    _opaque("realtime"),
    _opaque("agents"),
    _opaque("assistants"),
    _opaque("audio"),
    _opaque("batches"),
    _opaque("chatkit"),
    _opaque("decisions"),
    _opaque("evals"),
    Endpoint(name="fine_tuning", paths=("fine_tuning/checkpoints/{model}/**",)),
    _opaque("fine_tuning"),
    _opaque("images"),
    _opaque("live"),
    _opaque("threads"),
    # Older and foreign paths that name a model in the middle; the body may name another one.
    Endpoint(name="deployments", paths=("deployments/{model}/**",), stream=StreamEnd.CLOSE, bare=False),
    Endpoint(name="engines", paths=("engines/{model}/**",), stream=StreamEnd.CLOSE, bare=False),
)
"""Of several rows that fit, the one with the more particular path serves a request."""

OTHER: Final = Endpoint(name="other", stream=StreamEnd.CLOSE, bare=False)
"""Any path that is not in the table: relayed below `/v1`, and trusted with nothing."""

ENDPOINT_NAMES: Final = frozenset(endpoint.name for endpoint in TABLE)
"""What `[routes]` and `keys[].endpoints` may name."""

BARE_SEGMENTS: Final = tuple(
    sorted({endpoint.name.partition("/")[0] for endpoint in TABLE if endpoint.bare} - {"chat"})
)
"""First segments that are served without `/v1`. Of `chat`, only `chat/completions` is: the rest of `/chat/`
is the web chat's."""


class Match(NamedTuple):
    """What a path stands for."""

    endpoint: Endpoint
    model: slice | None = None
    """The segments that are the id of a model."""


@dataclass(slots=True)
class _Node:
    """A place in the tree of all patterns."""

    children: "dict[str, _Node]" = field(default_factory=dict)
    here: dict[str, Endpoint] = field(default_factory=dict)
    """By method; `""` is any other one."""
    below: dict[str, Endpoint] = field(default_factory=dict)
    """What a final `**` stands for."""
    below_is_model: bool = False
    unknown: Endpoint | None = None
    """For what is named like a known endpoint, but asked in another way."""


def match(method: str, segments: Sequence[str]) -> Match:
    """The endpoint of a request.

    Args:
        method: HEAD is served like GET.
        segments: Of the path below the version, decoded and in lower case.
    """
    method = "GET" if method == "HEAD" else method
    node, found = _TREE, Match(OTHER)
    model: slice | None = None
    for index, segment in enumerate(segments):
        child = node.children.get(segment)
        if child is None and (child := node.children.get("{model}")) is not None:
            model = slice(index, index + 1)
        node = child or node.children.get("*") or _NOTHING
        if node is _NOTHING:
            break
        rest = slice(index + 1, None)
        if (below := node.below.get(method) or node.below.get("")) is not None:
            found = Match(below, rest if node.below_is_model else model)
        elif node.unknown is not None:
            found = Match(node.unknown, model)
    else:
        here = node.here.get(method) or node.here.get("")
        if here is not None:
            return Match(here, model)
        if node.unknown is not None:
            return Match(node.unknown, model)
    return found


def _tree(table: Iterable[Endpoint]) -> _Node:
    root = _Node()
    for endpoint in table:
        for path in endpoint.paths or (endpoint.name,):
            steps = path.split("/")
            is_rest = steps[-1].endswith("**")
            node = root
            for step in steps[:-1] if is_rest else steps:
                node = node.children.setdefault(step, _Node())
            place = node.below if is_rest else node.here
            node.below_is_model |= steps[-1] == "{model}**"
            for method in endpoint.methods or {""}:
                place.setdefault(method, endpoint)
    for name in ENDPOINT_NAMES:
        node = root
        for step in name.split("/"):
            node = node.children.setdefault(step, _Node())
        node.unknown = replace(OTHER, name=name)
    return root


_NOTHING: Final = _Node()
_TREE: Final = _tree(TABLE)

FIXED_PATHS: Final = {
    (method, f"/{path}".encode()): endpoint
    for endpoint in TABLE
    for path in endpoint.paths or (endpoint.name,)
    for method in endpoint.methods
    if "*" not in path and "{" not in path
}
"""Most requests are for one of these paths, as written: `match` would find the same endpoint, but slower."""
