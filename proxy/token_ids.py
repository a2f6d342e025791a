"""The one door to tiktoken: what token ids say, by the encoding of the model that they were made for.

Encodings are read once, at the start, from the folder that TIKTOKEN_CACHE_DIR names or else from the network
(https://github.com/openai/tiktoken); no request ever waits for one.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from proxy.errors import InvalidRequest, SettingsError
from proxy.settings import Settings
from proxy.wire.repairs import DECODE_TOKEN_IDS, ReadIds, refuse_ids, resolve

if TYPE_CHECKING:
    from tiktoken import Encoding

DEFAULT_ENCODING: Final = "cl100k_base"
"""Of OpenAI's embedding models, and LangChain's where it does not know a model."""
LOAD_SECONDS: Final = 60.0
"""How long the start waits for an encoding."""


@dataclass(frozen=True, slots=True)
class TokenTexts:
    """Encodings that were read, by name; falsy without any."""

    encodings: Mapping[str, "Encoding"] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.encodings)

    def reader(self, model: str | None) -> ReadIds:
        """What reads the ids of a model's tokens; without encodings, what refuses them.

        Args:
            model: As the caller names it: by it the caller has chosen the encoding.
        """
        if not self:
            return refuse_ids

        def read(ids: list[int]) -> str:
            name = encoding_of(model) or DEFAULT_ENCODING
            encoding = self.encodings.get(name)
            if encoding is None:
                raise InvalidRequest(
                    f"`input` holds token ids in the encoding {name}, which is not read here; send text",
                    param="input",
                )
            try:
                return encoding.decode(ids)
            except (KeyError, OverflowError, ValueError) as error:
                raise InvalidRequest(
                    f"`input` holds token ids that the encoding {name} does not have", param="input"
                ) from error

        return read


NO_TEXTS: Final = TokenTexts()


def encoding_of(model: str | None) -> str | None:
    """The name of a model's encoding; None where tiktoken does not know the model."""
    import tiktoken

    try:
        return None if model is None else tiktoken.encoding_name_for_model(model)
    except KeyError:
        return None


def load_token_texts(settings: Settings) -> TokenTexts:
    """Read the encodings that may be needed, if `decode_token_ids` is on anywhere.

    It blocks: for the start alone. tiktoken keeps what was read, so that a second call costs nothing.

    Raises:
        SettingsError: an encoding is not to be had.
    """
    holders = _holders(settings)
    if not holders:
        return NO_TEXTS
    names = {encoding_of(model) or DEFAULT_ENCODING for model in (None, *_models(settings))}
    return TokenTexts({name: _load(name, holders[0]) for name in sorted(names)})


async def open_token_texts(settings: Settings) -> TokenTexts:
    """The same in a thread, where there is anything to read."""
    return await asyncio.to_thread(load_token_texts, settings) if _holders(settings) else NO_TEXTS


def _holders(settings: Settings) -> list[str]:
    """The keys of the settings that name `decode_token_ids`."""
    return [
        *(f"upstreams.{name}.repairs" for name, one in settings.upstreams.items() if _decodes(one.repairs)),
        *(
            f"access.keys.{place}.repairs"
            for place, one in enumerate(settings.access.keys)
            if _decodes(one.repairs)
        ),
    ]


def _decodes(repairs: Iterable[str]) -> bool:
    return DECODE_TOKEN_IDS in resolve(repairs)


def _models(settings: Settings) -> list[str]:
    """The models that the settings name."""
    routes = [route.match for route in settings.routes.models]
    known = [model.id for model in settings.models.known]
    return [*routes, *known, *(model for key in settings.access.keys for model in key.models)]


def _load(name: str, holder: str) -> "Encoding":
    """Read an encoding; the thread is left behind where the network is silent, as tiktoken has no clock."""
    import tiktoken

    found: list[Encoding] = []
    failed: list[str] = ["no answer in time"]

    def load() -> None:
        try:
            found.append(tiktoken.get_encoding(name))
        except Exception as error:  # of the file system, the network, or the file itself
            failed[:] = [type(error).__name__]

    _run(load)
    if not found:
        raise SettingsError(
            f"{holder}: {DECODE_TOKEN_IDS.name} needs the encoding {name}, which could not be read "
            f"({failed[0]}): put its file into the folder that TIKTOKEN_CACHE_DIR names, or let the start "
            "reach openaipublic.blob.core.windows.net"
        )
    return found[0]


def _run(load: Callable[[], None]) -> None:
    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    thread.join(LOAD_SECONDS)
