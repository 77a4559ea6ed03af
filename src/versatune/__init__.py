"""Fine-tune a language model on several domains at once without it forgetting any."""

__version__ = "0.1.0"
