"""What the operator said of models, for the next start of a server of this name: `words.json`.

Read before anything starts, so that nothing is loaded for nothing; the registry's database, which
is read later, says the same and more. Owns that file; must not start anything.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from smmf_core.config import spec_hash
from smmf_core.registry import LiveRegistry, Model

FILE = "words.json"


class Word(msgspec.Struct, frozen=True, omit_defaults=True):
    """On one model. `replicas` None: as its file has it; `spec_hash`: of the config it was said
    of, another one's number of replicas wins."""

    is_stopped: bool = False
    replicas: int | None = None
    spec_hash: str = ""


_decode = msgspec.json.Decoder(dict[str, Word]).decode


class Words:
    """In the server's state directory, beside the registry's database."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        self._kept: dict[str, Word] = {}

    def apply(self, registry: LiveRegistry) -> None:
        """To the models that are registered. A file that is broken says nothing."""
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            self._kept = _decode(self._file.read_bytes())
        for name, word in self._kept.items():
            model = registry.named(name)
            if model is None:
                continue
            model.is_stopped = model.is_stopped or word.is_stopped
            if word.replicas is not None and word.spec_hash == spec_hash(model.config):
                model.target, model.is_scaled = word.replicas, True

    def keep(self, registry: LiveRegistry) -> None:
        """Replace the file in one step, when it is another. A full disk costs a load."""
        words = {model.name: _word(model) for model in registry if not model.is_removed}
        words = {name: word for name, word in words.items() if word != Word()}
        if words == self._kept:
            return
        self._kept = words
        new = self._file.with_name(f"{FILE}.new")
        with contextlib.suppress(OSError):
            new.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            new.touch(mode=0o600)
            new.write_bytes(msgspec.json.encode(words))
            new.replace(self._file)


def _word(model: Model) -> Word:
    if model.is_scaled:
        return Word(model.is_stopped, model.target, spec_hash(model.config))
    return Word(model.is_stopped)
