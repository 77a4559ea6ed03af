"""A tiny real model: random weights, a byte-level tokenizer, any size of vocabulary."""

from pathlib import Path

from versatune.modeling.checkpoints import PLAIN_CHAT_TEMPLATE, CheckpointRef

WORDS = (  # noqa: SIM905
    "the a court contract judge drug dose heart loan bank share atom cell light loop list "
    "string map river poem what is why how does mean treat return of in to and not for"
).split()

BYTES = 256 + 3
"""The vocabulary of a tokenizer that knows bytes alone, and its three special tokens."""


def save_tiny(
    path: Path, vocab_size: int, hidden_size: int = 32, layers: int = 2, seed: int = 0
) -> CheckpointRef:
    """Write a random Llama whose BPE tokenizer has merged :data:`WORDS` up to ``vocab_size``."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator([" ".join(WORDS)] * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    tokenizer.chat_template = PLAIN_CHAT_TEMPLATE
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden_size,
            intermediate_size=2 * hidden_size,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=True,
        )
    )
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return CheckpointRef.of_folder(path, name=path.name)
