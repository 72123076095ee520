"""The sections of a remote model's file as typed structs.

Owns their keys; must not know how a provider is spoken to.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from smmf_core.config.section import Section, Text

# No user, password or fragment in it: the first is a secret, the second is nothing to a server.
Url = Annotated[str, msgspec.Meta(pattern=r"^(?:|(?:https?|wss?)://[^/@#\s]+[^@#\s]*)$")]


class Proxy(Section):
    """`[proxy]`: whose model it is, and where."""

    provider: Text  # one of providers.PROVIDERS
    model: str = ""  # the provider's own id; "": the model's name
    proxy_server_url: Url = ""  # "": the provider's own address
    proxy_api_version: str = ""  # where the provider has several
    proxies: str | dict[str, str] = ""  # an HTTP proxy, or one per scheme; "": none


class Authentication(Section):
    """`[authentication]`: secrets of a provider."""

    proxy_api_key: str = ""  # best as ${env:NAME} or ${file:PATH}
    proxy_api_secret: str = ""  # where a provider has two
    proxy_api_app_id: str = ""  # where a provider wants one

    def __repr__(self) -> str:
        """Whether each is given: a struct may end up in a log."""
        given = [name for name in self.__struct_fields__ if getattr(self, name)]
        return f"Authentication({', '.join(given)})"
