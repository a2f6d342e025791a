"""Decode token ids to text with tiktoken, by the encoding of the model that the caller names.

Encodings are loaded once, at start-up, from the folder in TIKTOKEN_CACHE_DIR or from the network
(https://github.com/openai/tiktoken), so no request waits for one.
"""

import asyncio
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from proxy.errors import InvalidRequest, SettingsError
from proxy.settings import Settings
from proxy.wire.repairs import DECODE_TOKEN_IDS, ReadIds, reject_ids, resolve

if TYPE_CHECKING:
    from tiktoken import Encoding

DEFAULT_ENCODING: Final = "cl100k_base"
"""The encoding of OpenAI's embedding models, which LangChain also uses for models that it does not know."""
LOAD_SECONDS: Final = 60.0
"""How long start-up waits for an encoding."""


class TokenTexts(msgspec.Struct, frozen=True):
    """The loaded encodings by name; falsy if there are none."""

    encodings: Mapping[str, "Encoding"] = msgspec.field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.encodings)

    def reader(self, model: str | None) -> ReadIds:
        """Return a function that decodes token ids; without encodings, one that rejects them.

        Args:
            model: The model that the caller names, which determined the encoding of the ids.
        """
        if not self:
            return reject_ids

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
    """Return the name of a model's encoding; None if tiktoken does not know the model."""
    import tiktoken

    try:
        return None if model is None else tiktoken.encoding_name_for_model(model)
    except KeyError:
        return None


def load_token_texts(settings: Settings) -> TokenTexts:
    """Load the encodings that requests may need, if any settings enable `decode_token_ids`.

    This blocks, so call it only at start-up. tiktoken caches encodings, so a second call is cheap.

    Raises:
        SettingsError: An encoding could not be loaded.
    """
    holders = _holders(settings)
    if not holders:
        return NO_TEXTS
    names = {encoding_of(model) or DEFAULT_ENCODING for model in (None, *_models(settings))}
    return TokenTexts({name: _load(name, holders[0]) for name in sorted(names)})


async def open_token_texts(settings: Settings) -> TokenTexts:
    """Load the encodings in a thread, if any are needed."""
    return await asyncio.to_thread(load_token_texts, settings) if _holders(settings) else NO_TEXTS


def _holders(settings: Settings) -> list[str]:
    """Return the keys of the settings that enable `decode_token_ids`."""
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
    """Return the models that the settings name."""
    routes = [route.match for route in settings.routes.models]
    known = [model.id for model in settings.models.known]
    return [*routes, *known, *(model for key in settings.access.keys for model in key.models)]


def _load(name: str, holder: str) -> "Encoding":
    """Load an encoding in a thread, which is abandoned after a while because tiktoken has no timeout."""
    import tiktoken

    found: list[Encoding] = []
    failed: list[str] = ["no response in time"]

    def load() -> None:
        try:
            found.append(tiktoken.get_encoding(name))
        except (OSError, ValueError) as error:  # the file system, the network, or the file itself
            failed[:] = [type(error).__name__]

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    thread.join(LOAD_SECONDS)
    if not found:
        raise SettingsError(
            f"{holder}: {DECODE_TOKEN_IDS.name} needs the encoding {name}, which could not be read "
            f"({failed[0]}): put its file into the folder that TIKTOKEN_CACHE_DIR names, or let the start "
            "reach openaipublic.blob.core.windows.net"
        )
    return found[0]
