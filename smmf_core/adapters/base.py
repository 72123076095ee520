"""What a model adapter says of its family of models.

Owns the list of methods; must not read a checkpoint: that has been done when an adapter is asked.
"""

from __future__ import annotations

from collections.abc import Sequence


class BaseModelAdapter:
    """A family of models: how a conversation becomes a prompt, and how an answer is read.

    To add one from a package of your own, subclass it and register the class (or an instance) as
    an entry point of the group `smmf.adapters`. Plug-ins are asked before the built-in families.
    Every method has a default, so that an adapter says only what is special:

    - `name`: what `[model] type` may say to choose this adapter
    - `matches`: whether a model is of this family
    - `chat_template`, `stop_tokens`, `stop_strings`: used where the checkpoint says nothing
    - `tool_format`, `reasoning_format`: how tool calls and thoughts look in an answer
    - `capabilities`: what these models can do beyond what the engine reports
    """

    name: str = ""

    def matches(self, name: str, path: str, model_type: str, architectures: Sequence[str]) -> bool:
        """Whether this adapter is for a model.

        `name` is what clients call it, `path` its folder or file; `model_type` and `architectures`
        are those of config.json or the GGUF file ("" and [] when they say nothing).
        """
        return False

    def chat_template(self) -> str | None:
        """A Jinja template for checkpoints without one. None: they cannot chat."""
        return None

    def stop_tokens(self) -> Sequence[str]:
        """Pieces of the vocabulary that end an answer, besides the checkpoint's end-of-text ids.

        Those that the tokenizer does not have are passed over.
        """
        return ()

    def stop_strings(self) -> Sequence[str]:
        """Text that ends an answer of a chat; it is not part of the answer."""
        return ()

    def tool_format(self) -> str:
        """The name of the format in which the model writes tool calls, one of
        `worker.parse.FORMATS`. "": what its chat template tells."""
        return ""

    def reasoning_format(self) -> str:
        """The name of the format in which the model writes its thoughts, one of
        `worker.parse.MARKS`. "": what its chat template tells."""
        return ""

    def capabilities(self) -> Sequence[str]:
        """More capabilities to list for the model."""
        return ()
