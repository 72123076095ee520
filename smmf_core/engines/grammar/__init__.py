"""Answers held to a form (JSON, a JSON schema, a tool's call) by masks over the vocabulary.

For the engines whose tokens are chosen here: reference, transformers, mlx. The library is
llguidance (Microsoft, MIT): wheels of 3 MB for every Python from 3.9 on (x86-64 and aarch64, glibc
2.31), no dependency, any tokenizer that can tell its tokens' bytes, JSON Schema, regular
expressions and context-free grammars, limits on everything. Its rival xgrammar (0.2.8) wants torch,
transformers and triton installed, which the base of this project does without.
"""
