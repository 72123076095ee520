"""`model: "auto"`: which model answers a request that says what it needs instead of a name.

Pure. Owns the choice; must not know bodies or queues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from smmf_core.api.openai import Require
from smmf_core.control_messages import ModelEntry
from smmf_core.errors import ApiError
from smmf_core.router.fleet import Fleet, Model

_CAPABILITIES = ("tools", "vision", "reasoning")


def choose(
    fleet: Fleet,
    task: str,
    capability: str,
    require: Require | None,
    may_ask: Callable[[ModelEntry], bool],
) -> Model:
    """The cheapest model that fits; of equals a loaded one, then the first of the files.

    1. Candidates do the route's task, and the client `may_ask` them; what is not known of a model
       that was never loaded is taken for a yes here, and for a no where it is required.
    2. None meets all requirements: 404, with what is missing.
    3. All that fit are out of service: why the first one is.
    """
    models = [fleet.models[index] for index in sorted(fleet.models)]
    models = [model for model in models if may_ask(model.entry)]
    candidates = [model for model in models if _does(model.entry, task, capability)]  # 1
    fitting = [m for m in candidates if require is None or not list(_lacks(m.entry, require))]
    if not fitting:  # 2
        raise _nothing_fits(candidates, require, capability)
    serving = [model for model in fitting if fleet.unavailable(model) is None]
    if not serving:  # 3
        unavailable = fleet.unavailable(fitting[0])
        assert unavailable is not None
        raise unavailable
    return min(serving, key=lambda model: (model.entry.cost, not model.is_loaded))


def check(model: Model, require: Require) -> None:
    """The same requirements of a model that was named. Raises ApiError (400)."""
    missing = list(_lacks(model.entry, require))
    if missing:
        text = f"The model '{model.name}' does not have {' or '.join(missing)}."
        raise ApiError("unsupported_value", text, "smmf.require")


def _does(entry: ModelEntry, task: str, capability: str) -> bool:
    known = entry.capabilities
    return entry.task == task and (not known or capability in known)


def _lacks(entry: ModelEntry, require: Require) -> Iterator[str]:
    """The requirements that a model does not meet, in words."""
    if entry.context_length < require.context_length:
        yield f"a context of {require.context_length} tokens"
    for name in _CAPABILITIES:
        if getattr(require, name) and name not in entry.capabilities:
            yield name
    if require.embedding_dimension not in (0, entry.dimensions):
        yield f"vectors of {require.embedding_dimension} dimensions"
    if entry.cost > require.max_cost:
        yield f"a cost of at most {require.max_cost:g}"


def _nothing_fits(candidates: list[Model], require: Require | None, capability: str) -> ApiError:
    """1. No model does such a thing at all; 2. nobody has certain of the requirements; 3. somebody
    has each of them, but nobody all."""
    if not candidates or require is None:  # 1
        return ApiError("model_not_found", f"No model here does '{capability}'.", "model")
    lacking = [list(_lacks(model.entry, require)) for model in candidates]
    missing = [word for word in lacking[0] if all(word in words for words in lacking)]
    if missing:  # 2
        text = f"No model here has {' or '.join(missing)}."
    else:  # 3
        text = f"No model here meets all of 'smmf.require'; {candidates[0].name} lacks "
        text += f"{' and '.join(lacking[0])}."
    return ApiError("model_not_found", text, "smmf.require")
