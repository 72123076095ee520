"""The description of the inference port for programs that read OpenAPI. Pure.

Owns how the routes look from outside; imported at the first question for it only.
"""

from smmf_core.api.describe.document import document

__all__ = ["document"]
