"""A model adapter: what a family of models needs beyond its checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

from smmf_core import BaseModelAdapter


class ShoutAdapter(BaseModelAdapter):
    """For models whose name says that they shout."""

    def matches(self, name: str, path: str, model_type: str, architectures: Sequence[str]) -> bool:
        return "shout" in name

    def chat_template(self) -> str:
        return "{% for message in messages %}{{ message.content | upper }}! {% endfor %}"

    def stop_strings(self) -> Sequence[str]:
        return ("!!",)

    def capabilities(self) -> Sequence[str]:
        return ("shouting",)
