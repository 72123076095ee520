"""Model adapters: what a family of models needs beyond its checkpoint, built in or plugged in."""

from smmf_core.adapters.base import BaseModelAdapter
from smmf_core.adapters.families import FAMILIES, Family
from smmf_core.adapters.find import find_adapter

__all__ = ["FAMILIES", "BaseModelAdapter", "Family", "find_adapter"]
