"""A checkpoint's own tokenizer code: pieces are bytes, as tiktoken's are."""

from transformers import PreTrainedTokenizer

WORDS = (b"the", b" the", b" quick", b" brown", "\u4f60".encode())


class BytesTokenizer(PreTrainedTokenizer):
    def __init__(self, **settings):
        self.pieces = [bytes([byte]) for byte in range(256)] + list(WORDS)
        self.ids = {piece: id_ for id_, piece in enumerate(self.pieces)}
        super().__init__(**settings)

    @property
    def vocab_size(self):
        return len(self.pieces)

    def get_vocab(self):
        return {**self.ids, **self.added_tokens_encoder}

    def _tokenize(self, text, **unused):
        data, pieces = text.encode(), []
        while data:
            longest = next((word for word in sorted(WORDS, key=len, reverse=True)
                            if data.startswith(word)), data[:1])  # fmt: skip
            pieces.append(longest)
            data = data[len(longest) :]
        return pieces

    def _convert_token_to_id(self, token):
        return self.ids[token]

    def _convert_id_to_token(self, index):
        return self.pieces[index]

    def convert_tokens_to_string(self, tokens):
        return b"".join(tokens).decode("utf-8", "replace")
