"""Fine-tune a language model on several domains at once, with a measured mixture."""

__version__ = "0.1.0"
