"""From an Embed to texts as token ids: the model's prompts, lengths, dimensions.

Pure. Raises ApiError for what cannot run; must not touch the batch.
"""

from __future__ import annotations

from collections.abc import Callable

from smmf_core.engines.base import EmbedSpec, Text
from smmf_core.errors import ApiError
from smmf_core.messages import Embed

_QUERIES = "text_1"  # as /v1/score has them
Tokenize = Callable[[list[str | list[int]], str | None, int], list[Text]]


def read_texts(submit: Embed, spec: EmbedSpec, tokenize: Tokenize) -> list[Text]:
    """Tokenise all inputs. Raises ApiError (400), which names the input that cannot be taken."""
    _check_dimensions(submit, spec)
    _check_token_ids(submit, spec)
    limit = spec.context_length if submit.max_tokens < 0 else submit.max_tokens
    inputs = _with_prompt(submit.inputs, submit, spec)
    if compares(submit, spec):
        texts = tokenize([*_with_prompt(queries_of(submit), submit, spec), *inputs], None, limit)
    elif submit.queries is None:
        texts = tokenize(inputs, submit.query, limit)
    else:
        pairs = zip(inputs, submit.queries, strict=True)
        texts = [tokenize([text], query, limit)[0] for text, query in pairs]
    for number, text in enumerate(texts):
        if not text.ids:
            where = _name(submit, spec, number)
            raise ApiError("invalid_value", f"'{where}' holds no tokens.", where)
        if len(text.ids) > spec.context_length:
            where = _name(submit, spec, number)
            raise ApiError(
                "context_length_exceeded",
                f"This model's maximum context length is {spec.context_length} tokens. However, "
                f"'{where}' has {len(text.ids)} tokens{_with_query(submit, spec)}.",
                where,
            )
    return texts


def compares(submit: Embed, spec: EmbedSpec) -> bool:
    """Whether scores are asked of a model of vectors: they are the cosines of its vectors."""
    return spec.dimensions > 1 and (submit.query is not None or submit.queries is not None)


def queries_of(submit: Embed) -> list[str | list[int]]:
    """One for all inputs, or one for each."""
    if submit.queries is not None:
        return [*submit.queries]
    return [] if submit.query is None else [submit.query]


def _with_prompt(
    texts: list[str | list[int]], submit: Embed, spec: EmbedSpec
) -> list[str | list[int]]:
    """Token ids are taken as they are."""
    name = submit.prompt_name or spec.default_prompt
    if submit.prompt_name is not None and name not in spec.prompts:
        known = ", ".join(f"'{prompt}'" for prompt in spec.prompts) or "none"
        text = f"This model has no prompt of this name. Its prompts are: {known}."
        raise ApiError("invalid_value", text, "prompt_name")
    prompt = spec.prompts.get(name, "")
    if not prompt:
        return texts
    return [prompt + text if isinstance(text, str) else text for text in texts]


def _check_dimensions(submit: Embed, spec: EmbedSpec) -> None:
    """As vLLM: only models that were trained for it (Matryoshka) have shorter vectors."""
    wanted = submit.dimensions
    if wanted is None or wanted == spec.dimensions:
        return
    if not spec.is_matryoshka:
        text = f"This model's vectors have {spec.dimensions} dimensions: it has no shorter ones."
    elif spec.matryoshka and wanted not in spec.matryoshka:
        listed = ", ".join(map(str, sorted(spec.matryoshka)))
        text = f"This model's vectors have one of these numbers of dimensions: {listed}."
    elif wanted > spec.dimensions:
        text = f"This model's vectors have at most {spec.dimensions} dimensions."
    else:
        return
    raise ApiError("unsupported_value", f"Invalid 'dimensions': {wanted}. {text}", "dimensions")


def _check_token_ids(submit: Embed, spec: EmbedSpec) -> None:
    for number, ids in enumerate(submit.inputs):
        if isinstance(ids, list) and (bad := next((t for t in ids if t >= spec.vocab_size), None)):
            where = _input_name(submit.param, number, len(submit.inputs))
            text = f"Token {bad} of '{where}' is outside the vocabulary of {spec.vocab_size}."
            raise ApiError("invalid_value", text, where)


def _name(submit: Embed, spec: EmbedSpec, number: int) -> str:
    """What the client calls a text of those that are computed."""
    if not compares(submit, spec):
        return _input_name(submit.param, number, len(submit.inputs))
    queries = len(queries_of(submit))
    if number < queries:
        return _input_name(_QUERIES, number, queries)
    return _input_name(submit.param, number - queries, len(submit.inputs))


def _input_name(param: str, number: int, count: int) -> str:
    is_alone = count == 1 and param != "documents"  # those are always a list
    return param if is_alone else f"{param}[{number}]"


def _with_query(submit: Embed, spec: EmbedSpec) -> str:
    return " with the query" if queries_of(submit) and not compares(submit, spec) else ""
