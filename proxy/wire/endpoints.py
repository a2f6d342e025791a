"""The table of API endpoints: everything that the proxy knows about a path.

Routing, access, limits, usage, relay, repairs, heartbeats and documentation read this table and nothing else.
Only `proxy.wire.paths.find_target` maps a path to an endpoint. All later code uses the `Endpoint` and never
looks at the path again.

https://platform.openai.com/docs/api-reference, and the paths of Cohere and Jina for `rerank`.
"""

from collections.abc import Iterable, Sequence
from enum import Enum, StrEnum
from typing import Final, NamedTuple

import msgspec
from msgspec.structs import replace

COHERE_RERANK: Final = "v2/rerank"
"""The path that Cohere's client uses. Its requests and responses are those of `rerank`."""


class ModelPlace(Enum):
    """Where a request names the model that it runs."""

    NONE = "none"
    """The request runs no model."""
    BODY = "body"
    """The model is in `model`, a field of the JSON body or of the form."""
    PATH = "path"
    """The model is in the last part of the path."""
    QUERY = "query"
    """The model is in `model`, a query parameter."""
    HIDDEN = "hidden"
    """The request may run a model that it does not name, or names where the proxy does not look."""


class StreamEnd(Enum):
    """How a complete event stream ends."""

    FINISH = "finish"
    """A stream ends with `[DONE]`, or at least with a choice that has a `finish_reason`."""
    RESPONSE = "response"
    """A stream ends with `response.completed`, `.incomplete` or `.failed`; its errors are `error` events."""
    CLOSE = "close"
    """A stream ends with the body."""


class Charge(Enum):
    """How a token budget is charged if the upstream does not report usage."""

    NOTHING = "nothing"
    """Nothing, because no model runs."""
    PROMPT = "prompt"
    """The request only, because the response holds vectors or scores."""
    TEXT = "text"
    """The request and the text of the response."""
    MEDIA = "media"
    """The request, and a flat amount for an image, a sound or a video."""


class Shape(StrEnum):
    """The kinds of requests and responses that have repairs."""

    CHAT = "chat/completions"
    COMPLETION = "completions"
    EMBEDDINGS = "embeddings"
    MODELS = "models"
    MODERATION = "moderations"
    RERANK = "rerank"
    SPEECH = "audio/speech"
    TRANSCRIPTION = "audio/transcriptions"
    TRANSLATION = "audio/translations"


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The properties of requests to certain paths and methods."""

    name: str
    """The path below the version, without ids, as used in settings, logs and metrics."""
    paths: tuple[str, ...] = ()
    """Patterns for the path, by default the name itself. `*` matches one segment and `**` the rest. `{model}`
    and `{model}**` match the same, as the id of a model."""
    methods: frozenset[str] = frozenset()
    """The methods; if empty, all methods that no other row has."""
    model: ModelPlace = ModelPlace.HIDDEN
    form: bool = False
    """Whether the body may be a multipart form instead of JSON."""
    stream: StreamEnd | None = None
    """How an event stream ends; None if responses are never event streams."""
    heartbeats: bool = False
    """Whether `"stream": true` in the JSON body requests an event stream, so that comments may precede it."""
    charge: Charge = Charge.TEXT
    shape: Shape | None = None
    """The shape of requests and responses; None if no named repair applies."""
    for_limited_keys: bool = False
    """Whether a key that is limited to models may use it, unless `keys[].endpoints` says otherwise."""
    bare: bool = True
    """Whether it is also served without `/v1`."""
    websocket: bool = False
    nested_models: bool = False
    """Whether tools in the body can name further models to run."""
    background: bool = False
    """Whether `"background": true` in the JSON body lets the model run after the response to the request."""
    uncounted: bool = False
    """Whether requests can start work, such as a batch, whose tokens their responses never report."""

    def is_in(self, names: Iterable[str]) -> bool:
        """Whether the names include this endpoint or one above it."""
        return any(self.name == name or self.name.startswith(name + "/") for name in names)


GET: Final = frozenset({"GET"})
POST: Final = frozenset({"POST"})

_CREATE: Final = Endpoint(name="", methods=POST, model=ModelPlace.BODY, for_limited_keys=True)
"""The common properties of requests that run the model named in their body."""
_STORED: Final = Endpoint(
    name="",
    methods=frozenset({"GET", "DELETE"}),
    model=ModelPlace.NONE,
    charge=Charge.NOTHING,
    for_limited_keys=True,
)
"""The common properties of requests that read or delete stored objects."""

CHAT_COMPLETIONS: Final = replace(
    _CREATE, name="chat/completions", stream=StreamEnd.FINISH, heartbeats=True, shape=Shape.CHAT
)
EMBEDDINGS: Final = replace(_CREATE, name="embeddings", charge=Charge.PROMPT, shape=Shape.EMBEDDINGS)
RERANK: Final = replace(_CREATE, name="rerank", charge=Charge.PROMPT, shape=Shape.RERANK)
MODELS: Final = replace(_STORED, name="models", methods=GET, shape=Shape.MODELS)
REALTIME: Final = Endpoint(
    name="realtime",
    methods=GET,
    model=ModelPlace.QUERY,
    stream=StreamEnd.CLOSE,
    for_limited_keys=True,
    websocket=True,
)


def _stored(name: str, *, for_limited_keys: bool = False) -> Endpoint:
    """Return an endpoint that only stores and lists objects, including all paths below it."""
    return replace(
        _STORED, name=name, paths=(name, f"{name}/**"), methods=frozenset(), for_limited_keys=for_limited_keys
    )


def _opaque(name: str) -> Endpoint:
    """Return an endpoint that can run models its requests do not name, including all paths below it."""
    return Endpoint(name=name, paths=(name, f"{name}/**"), stream=StreamEnd.CLOSE)


def _uncounted(name: str) -> Endpoint:
    """Return such an endpoint whose models run after its responses, or in connections past the proxy."""
    return replace(_opaque(name), uncounted=True)


TABLE: Final = (
    CHAT_COMPLETIONS,
    replace(
        _STORED,
        name="chat/completions",
        paths=("chat/completions", "chat/completions/*", "chat/completions/*/messages"),
    ),
    replace(_CREATE, name="completions", stream=StreamEnd.FINISH, heartbeats=True, shape=Shape.COMPLETION),
    EMBEDDINGS,
    RERANK,
    replace(_CREATE, name="moderations", charge=Charge.PROMPT, shape=Shape.MODERATION),
    MODELS,
    replace(_STORED, name="models", paths=("models/{model}**",), methods=GET, model=ModelPlace.PATH),
    Endpoint(name="models", paths=("models/{model}**",), stream=StreamEnd.CLOSE),
    replace(
        _CREATE,
        name="responses",
        stream=StreamEnd.RESPONSE,
        heartbeats=True,
        nested_models=True,
        background=True,
    ),
    replace(
        _CREATE, name="responses", paths=("responses/compact", "responses/input_tokens"), nested_models=True
    ),
    replace(
        _STORED,
        name="responses",
        paths=("responses/*", "responses/*/input_items", "responses/*/cancel"),
        stream=StreamEnd.RESPONSE,  # `?stream=true` sends a stored response as a stream.
    ),
    replace(_STORED, name="responses", paths=("responses/*/cancel",), methods=POST),
    replace(_CREATE, name="audio/speech", stream=StreamEnd.CLOSE, charge=Charge.MEDIA, shape=Shape.SPEECH),
    replace(
        _CREATE, name="audio/transcriptions", form=True, stream=StreamEnd.CLOSE, shape=Shape.TRANSCRIPTION
    ),
    replace(_CREATE, name="audio/translations", form=True, shape=Shape.TRANSLATION),
    _stored("audio/voices"),
    _stored("audio/voice_consents"),
    replace(_CREATE, name="images/generations", stream=StreamEnd.CLOSE, charge=Charge.MEDIA),
    replace(_CREATE, name="images/edits", form=True, stream=StreamEnd.CLOSE, charge=Charge.MEDIA),
    replace(_CREATE, name="images/variations", form=True, charge=Charge.MEDIA),
    replace(_CREATE, name="videos", form=True, charge=Charge.MEDIA),
    replace(_STORED, name="videos", paths=("videos", "videos/**")),
    Endpoint(name="videos", paths=("videos/**",), methods=POST, charge=Charge.MEDIA),
    _stored("files", for_limited_keys=True),
    _stored("uploads", for_limited_keys=True),
    *map(_stored, ("containers", "content_provenance_checks", "conversations", "organization", "projects")),
    *map(
        _stored, ("safety", "skills", "vaults", "vector_stores", "webhook_endpoints", "webhook_event_types")
    ),
    REALTIME,
    Endpoint(name="fine_tuning", paths=("fine_tuning/checkpoints/{model}/**",), uncounted=True),
    *map(_opaque, ("assistants", "audio", "decisions", "images")),
    *map(_uncounted, ("agents", "batches", "chatkit", "evals", "fine_tuning", "live", "realtime", "threads")),
    # Older and foreign paths that name a model in the middle. The body may name another one.
    Endpoint(name="deployments", paths=("deployments/{model}/**",), stream=StreamEnd.CLOSE, bare=False),
    Endpoint(name="engines", paths=("engines/{model}/**",), stream=StreamEnd.CLOSE, bare=False),
)
"""All endpoints. If several rows match, the most specific path wins."""

OTHER: Final = Endpoint(name="other", stream=StreamEnd.CLOSE, bare=False)
"""All paths that are not in the table. They are relayed below `/v1`, but have no permissions by default."""

ENDPOINT_NAMES: Final = frozenset(endpoint.name for endpoint in TABLE)
"""The names that `[routes]` and `keys[].endpoints` may use."""

BARE_SEGMENTS: Final = tuple(
    sorted({endpoint.name.partition("/")[0] for endpoint in TABLE if endpoint.bare} - {"chat"})
)
"""First segments that are served without `/v1`. `chat` is not among them, because only `chat/completions` is
relayed: other paths below `/chat/` belong to the web chat."""


class Match(NamedTuple):
    """The endpoint that a path belongs to."""

    endpoint: Endpoint
    model: slice | None = None
    """The segments that hold the id of a model."""


class _Node(msgspec.Struct):
    """A node in the tree of all patterns."""

    children: "dict[str, _Node]" = msgspec.field(default_factory=dict)
    here: dict[str, Endpoint] = msgspec.field(default_factory=dict)
    """The endpoints of a path that ends here, by method; `""` is any other method."""
    below: dict[str, Endpoint] = msgspec.field(default_factory=dict)
    """The endpoints of a final `**`, by method."""
    below_is_model: bool = False
    unknown: Endpoint | None = None
    """The endpoint for paths and methods below a known name that no row has."""


def match(method: str, segments: Sequence[str]) -> Match:
    """Find the endpoint of a request.

    Args:
        method: The method. HEAD is treated like GET.
        segments: The segments of the path below the version, decoded and in lower case.
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
"""The paths without patterns, for a faster look-up than by `match`. Most requests use one of them."""
