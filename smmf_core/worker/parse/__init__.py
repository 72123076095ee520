"""Reading an answer while it is generated: thoughts, calls of tools, and what is left as content.

Pure. Owns the forms in which families of models write them; must not know tokens or records.
"""

from smmf_core.worker.parse.chain import CALL, CONTENT, THOUGHT, Chain, Piece
from smmf_core.worker.parse.formats import FORMATS
from smmf_core.worker.parse.thoughts import MARKS

REASONING_FORMATS = tuple(MARKS)

__all__ = ["CALL", "CONTENT", "FORMATS", "MARKS", "REASONING_FORMATS", "THOUGHT", "Chain", "Piece"]
