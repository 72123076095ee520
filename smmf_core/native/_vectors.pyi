def render_embeddings(
    data: bytes, dimensions: int, is_base64: bool, head: bytes, tail: bytes
) -> bytes:
    """`head`, the rows of float32 as objects of an embeddings answer, `tail`. Without the GIL."""

def render_rows(data: bytes, dimensions: int, head: bytes, tail: bytes) -> bytes:
    """`head`, the rows of float32 as arrays, `tail`. Without the GIL."""
