"""From a Hugging Face model folder to a model that can compute, by transformers.

Owns where and how a model is loaded, and every way in which that can fail; must not generate.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from tqdm import tqdm
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils.logging import set_tqdm_hook

from smmf_core.config import ModelConfig
from smmf_core.config.engine_options import TransformersOptions
from smmf_core.engines.hf_files import stored_tensors, weight_files
from smmf_core.engines.hf_legacy import legacy_model
from smmf_core.engines.hf_memory import check_fits, needed_bytes
from smmf_core.engines.hf_quant import Quantization, quantization, settings
from smmf_core.engines.text import read_json

_log = logging.getLogger("smmf.transformers")

ATTENTIONS = ("eager", "sdpa", "flash_attention_2")
_AUTO_CLASS = "AutoModelForCausalLM"
_CONTEXT_KEYS = (
    "max_position_embeddings", "seq_length", "n_positions", "max_seq_len", "n_ctx",
    "model_max_length",
)  # fmt: skip
_WEIGHTS_BAR = "Loading weights"  # what the library calls that bar
_UNKNOWN_CONTEXT = 2048  # tokens, where config.json does not say
_MEMORY_WORDS = ("not enough memory", "out of memory", "can't allocate memory")


@dataclass(slots=True)
class LoadedModel:
    """`device` is where token ids go; a model over several devices (`device_map`) moves them on."""

    model: Any
    device: torch.device
    dtype: torch.dtype
    context_length: int
    vocab_size: int  # rows of the embedding
    config: Any  # transformers' own
    attention: str


def load(
    config: ModelConfig, options: TransformersOptions, progress: Callable[[float], None]
) -> LoadedModel:
    """Raises OSError, ValueError or MemoryError, in one sentence, when that cannot be done."""
    folder = Path(config.model.path).expanduser()
    files = weight_files(folder)
    raw = read_json(folder / "config.json")
    method = quantization(config, raw.get("quantization_config"))
    legacy = legacy_model(raw, options.trust_remote_code)
    auto = transformers.AutoModelForCausalLM if legacy is None else legacy.model
    model_config = (
        _read_config(folder, raw, options.trust_remote_code) if legacy is None else legacy.config
    )
    device = choose_device(config.deployment.device)
    text_config = model_config.get_text_config(decoder=True)
    dtype = choose_dtype(config.optimization.dtype, text_config.dtype or model_config.dtype, device)
    tensors = stored_tensors(files)
    placement = options.device_map or {"": device}
    check_fits(needed_bytes(tensors, dtype, method.bits), _devices(placement, device))
    if options.threads:
        torch.set_num_threads(options.threads)
    arguments: dict[str, Any] = {
        "config": model_config,
        "dtype": dtype,
        "device_map": placement,
        "attn_implementation": choose_attention(config.optimization.attention),
        "trust_remote_code": options.trust_remote_code,
        "local_files_only": True,
    }
    if method.bits:
        arguments["quantization_config"] = settings(method, dtype)
    model = _from_pretrained(auto, folder, arguments, progress)
    if options.compile:
        model.compile(dynamic=True)
    return LoadedModel(
        model=model,
        device=model.get_input_embeddings().weight.device,
        dtype=dtype,
        context_length=options.max_model_len or _context_length(text_config),
        vocab_size=model.get_input_embeddings().weight.shape[0],
        config=model.config,
        attention=model.config._attn_implementation,
    )


def choose_device(wanted: str) -> torch.device:
    """`auto`: the first GPU, else Apple's, else the CPU. Raises ValueError."""
    if wanted == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        return torch.device("mps" if torch.backends.mps.is_available() else name)
    device = torch.device(wanted)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise ValueError(f"There is no device {wanted}: this torch sees {count} CUDA devices.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("There is no device mps: this torch sees no GPU of Apple's.")
    return device


def choose_dtype(wanted: str, stored: torch.dtype | None, device: torch.device) -> torch.dtype:
    """`auto`: the checkpoint's own, but what the device computes fast: float32 instead of float16
    on a CPU, float16 instead of bfloat16 on a GPU before Ampere."""
    if wanted != "auto":
        dtype: torch.dtype = getattr(torch, wanted)
        return dtype
    if stored is None or not stored.is_floating_point or stored.itemsize == 1:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if device.type == "cpu" and stored == torch.float16:
        return torch.float32
    if device.type == "cuda" and stored == torch.bfloat16 and not torch.cuda.is_bf16_supported():
        return torch.float16
    return stored


def choose_attention(wanted: str) -> str | None:
    """None: the library's own choice. Raises ValueError for an unknown name."""
    if not wanted:
        return None
    if wanted not in ATTENTIONS:
        raise ValueError(f"attention is {wanted!r}: this engine has {', '.join(ATTENTIONS)}.")
    if wanted == "flash_attention_2" and find_spec("flash_attn") is None:
        _log.warning(
            "attention = 'flash_attention_2' needs the package flash-attn "
            "(`pip install smmf[flash-attn]`): sdpa is used instead"
        )
        return "sdpa"
    return wanted


def check_tokenizer(tokens: int, loaded: LoadedModel) -> None:
    """Raises ValueError for a tokenizer that makes ids for which the model has no embedding."""
    if tokens > loaded.vocab_size:
        raise ValueError(f"The tokenizer has {tokens} tokens, the model {loaded.vocab_size}.")


def _read_config(folder: Path, raw: dict[str, Any], trusts: bool) -> Any:
    """Raises ValueError for a model that is none, or needs code that is not trusted."""
    model_type, classes = raw.get("model_type"), raw.get("architectures") or []
    own_code = raw.get("auto_map") or {}
    is_known = model_type in transformers.CONFIG_MAPPING
    if own_code and not trusts and (not is_known or model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        raise ValueError(
            f"The architecture {classes[0] if classes else model_type!r} is code in the model's own "
            "folder; to run it, set `trust_remote_code = true` in [engine] if you trust it."
        )
    if not is_known and not own_code:
        raise ValueError(
            f"transformers {transformers.__version__} does not know the model type {model_type!r}."
        )
    try:
        config = transformers.AutoConfig.from_pretrained(
            folder, trust_remote_code=trusts, local_files_only=True
        )
    except Exception as error:  # whatever a folder's values or code may raise
        raise ValueError(f"{folder / 'config.json'} cannot be used: {_first_line(error)}") from error
    if not (trusts and _AUTO_CLASS in own_code):
        _check_is_causal(model_type, classes)
    return config


def _check_is_causal(model_type: str, classes: list[str]) -> None:
    mapped = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(model_type)
    if mapped is None:
        what = classes[0] if classes else model_type
        raise ValueError(f"{what} is no language model that generates text (no causal LM).")
    causal = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    others = [name for name in classes if hasattr(transformers, name) and name not in causal]
    if others and len(others) == len(classes):
        raise ValueError(f"The weights are those of {others[0]}: {mapped} is needed to generate.")


def _context_length(config: Any) -> int:
    for name in _CONTEXT_KEYS:
        length = getattr(config, name, None)
        if isinstance(length, int) and length > 0:
            return length
    return _UNKNOWN_CONTEXT


def _devices(placement: Any, device: torch.device) -> list[torch.device]:
    """Where weights may come to lie."""
    if isinstance(placement, dict):
        return list({torch.device(place) for place in placement.values() if place != "disk"})
    gpus = [torch.device("cuda", n) for n in range(torch.cuda.device_count())]
    return [*gpus, torch.device("cpu")] if gpus else [device]


def _from_pretrained(
    auto: Any, folder: Path, arguments: dict[str, Any], progress: Callable[[float], None]
) -> Any:
    try:
        with _reported(progress):
            model, info = auto.from_pretrained(
                folder, output_loading_info=True, ignore_mismatched_sizes=True, **arguments
            )
    except Exception as error:  # whatever a library or a folder's code may raise
        raise _explained(error) from error
    _check_complete(model, info)
    return model.eval()


def _explained(error: Exception) -> Exception:
    text = _first_line(error)
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        words in str(error).lower() for words in _MEMORY_WORDS
    ):
        return MemoryError(f"Memory ran out while the weights were loaded: {text}")
    if isinstance(error, OSError):
        return error
    return ValueError(f"transformers cannot load it: {text}")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _check_complete(model: Any, info: dict[str, Any]) -> None:
    """The library fills what it does not find with random numbers: here it is an error."""
    for name, stored, wanted in sorted(info["mismatched_keys"]):
        raise ValueError(
            f"Tensor {name} has shape {list(stored)}, config.json asks for {list(wanted)}."
        )
    parameters = {name for name, _ in model.named_parameters()}
    missing = sorted(parameters.intersection(info["missing_keys"]))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(f"The weights have no tensor {missing[0]}{more}.")


@contextmanager
def _reported(progress: Callable[[float], None]) -> Iterator[None]:
    """The library's progress bars go to `progress` instead of a terminal."""

    def make_bar(factory: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        bar = tqdm(*args, **{**kwargs, "disable": True})
        if kwargs.get("desc") == _WEIGHTS_BAR and args:
            bar.iterable = _counted(list(args[0]), progress)
        return bar

    former = set_tqdm_hook(make_bar)
    try:
        yield
    finally:
        set_tqdm_hook(former)


def _counted(items: list[Any], progress: Callable[[float], None]) -> Iterator[Any]:
    """One item per parameter."""
    shown = 0
    for done, item in enumerate(items, 1):
        yield item
        percent = 100 * done // len(items)
        if percent > shown:
            shown = percent
            progress(done / len(items))
