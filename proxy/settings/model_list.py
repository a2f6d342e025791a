"""`[models]`: what callers see when they ask which models there are."""

from typing import Literal, Self

from pydantic import model_validator

from proxy.settings.fields import Count, Name
from proxy.settings.section import Section, refuse


class KnownModel(Section):
    """One model that is listed."""

    id: Name
    owned_by: Name = "llm-token-proxy"
    context_length: Count | None = None
    """Tokens; clients such as RAGFlow take it over."""


class Models(Section):
    """Where the list comes from."""

    list: Literal["relayed", "configured", "merged"] = "relayed"
    """The answer of the upstream for `models`, untouched; the models below; or those of all upstreams with
    the ones below."""
    known: tuple[KnownModel, ...] = ()

    @model_validator(mode="after")
    def _has_something_to_list(self) -> Self:
        if self.list == "configured" and not self.known:
            refuse("lists nothing: add [[models.known]] with an id", "list")
        if len({model.id for model in self.known}) < len(self.known):
            refuse("names a model twice", "known")
        return self
