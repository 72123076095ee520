"""SMMF: one OpenAI-compatible endpoint over many models, engines and replicas."""

__version__ = "0.1.0"
