"""From messages to token ids and back: chat templates and tokenizers of model folders."""
