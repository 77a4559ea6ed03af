"""Tokenizers and chat templates of the usual kinds, and a model that knows its rows by heart."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

ENDS = ["<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"]

WORDS = "law bank river judge loan court spring number the old user assistant what is"

_CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

_TURN = "{% for m in messages %}{% if m.role == 'user' %}"

TEMPLATES = {
    "chatml": _CHATML,
    # An empty thought, or the turn's own, before the last answer.
    "thinking": (
        "{% for m in messages %}{% if m.role == 'assistant' %}"
        "{% set thought = m.reasoning_content or '' %}{% set said = m.content %}"
        "{% if '</think>' in said %}"
        "{% set thought = said.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
        "{% set said = said.split('</think>')[-1].lstrip('\n') %}{% endif %}"
        "{{ '<|im_start|>assistant\n' }}{% if loop.last %}"
        "{{ '<think>\n' + thought + '\n</think>\n\n' }}{% endif %}{{ said + '<|im_end|>\n' }}"
        "{% else %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    # The prompt begins the thought, the answer ends it.
    "thought-begun": (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
        "{% if m.role == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
        "{{ m.content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
    ),
    "thought-dropped": (
        "{{ bos_token }}" + _TURN + "{{ '<|user|>' + m.content }}{% else %}"
        "{{ '<|assistant|>' + m.content.split('</think>')[-1] + eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|><think>\n' }}{% endif %}"
    ),
    "llama2": (
        _TURN + "{{ bos_token + '[INST] ' + m.content.strip() + ' [/INST]' }}{% else %}"
        "{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
    ),
    "vicuna": (
        _TURN + "{{ 'USER: ' + m.content + ' ' }}{% else %}"
        "{{ 'ASSISTANT: ' + m.content + eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
    ),
    "blank-prompt": (
        _TURN + "{{ 'Q: ' + m.content + '\n' }}{% else %}"
        "{{ 'A: ' + m.content + eos_token + '\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'A: ' }}{% endif %}"
    ),
    "phi3": (
        "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
    ),
    "llama3": (
        "{{ bos_token }}{% for m in messages %}"
        "{{ '<|user|>' + m.role + '<|end|>\n\n' + m.content.strip() + '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|user|>assistant<|end|>\n\n' }}{% endif %}"
    ),
    "gemma": (
        "{{ bos_token }}{% for m in messages %}"
        "{% set role = 'model' if m.role == 'assistant' else m.role %}"
        "{{ '<|im_start|>' + role + '\n' + m.content | trim + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>model\n' }}{% endif %}"
    ),
    "mistral": (
        "{{ bos_token }}" + _TURN + "{{ '[INST] ' + m.content + '[/INST]' }}{% else %}"
        "{{ ' ' + m.content | trim + eos_token }}{% endif %}{% endfor %}"
    ),
    "zephyr": (
        "{% for m in messages %}\n{{ '<|' + m.role + '|>\n' + m.content + eos_token }}\n"
        "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n"
        "{% endfor %}"
    ),
    "alpaca": (
        _TURN + "{{ '### Instruction:\n' + m.content.strip() + '\n\n' }}{% else %}"
        "{{ '### Response:\n' + m.content.strip() + eos_token + '\n\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}"
    ),
    "marked": _CHATML.replace("m.content + '<|im_end|>\n'", "''").replace(
        "{% endfor %}",
        "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
        "{% else %}{{ m.content }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}",
    ),
    # What is marked begins with the words of the prompt, as in SmolLM3.
    "marked-with-prompt": (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}"
        "{{ '<|im_start|>assistant\n' + m.content + '<|im_end|>\n' }}{% endgeneration %}"
        "{% else %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    # The answer names its channel, and only the last one of a conversation ends it.
    "channels": (
        "{% for m in messages %}{% if m.role == 'user' %}{{ '<|user|>' + m.content + '<|end|>' }}"
        "{% else %}{{ '<|assistant|>' }}{% if m.thinking %}"
        "{{ 'plan<|im_start|>' + m.thinking + '<|end|><|assistant|>' }}{% endif %}"
        "{{ 'final<|im_start|>' + m.content + ('<|im_end|>' if loop.last else '<|end|>') }}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    ),
    # An answer stands between words of the template's own, and several tokens end it.
    "framed": (
        _TURN + "{{ 'Question: ' + m.content + '\n' }}{% else %}"
        "{{ 'Answer: [' + m.content + '] over<|end|>' + eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'Answer:' }}{% endif %}"
    ),
    # Nothing ends an answer but the token that begins the next turn, as in GLM.
    "opened-alone": (
        "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content.strip() }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    ),
    # An answer is marked in two pieces, and the end of the conversation is one of them.
    "marked-in-pieces": (
        "{% for m in messages %}{{ '<|' + m.role + '|>\n' }}{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content + '<|end|>\n' }}{% endgeneration %}"
        "{% else %}{{ m.content + '<|end|>\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}"
        "{% else %}{% generation %}{{ eos_token }}{% endgeneration %}{% endif %}"
    ),
    # Contents are lists of parts, as in models for images and texts.
    "in-parts": (
        "{% for m in messages %}{{ '<|im_start|>' + m.role | capitalize }}"
        "{{ ':' if m.content[0].type == 'image' else ': ' }}"
        "{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}"
        "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>Assistant:' }}{% endif %}"
    ),
    # The prompt closes an empty thought, unless the answer has one of its own.
    "thought-off": (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
        "{% if m.role == 'assistant' and loop.last %}"
        "{{ '<think>\n' + (m.reasoning_content or '') + '\n</think>\n\n' }}{% endif %}"
        "{{ m.content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' }}"
        "{% endif %}"
    ),
    # The prompt closes a thought that nothing opened, as in DeepSeek-V3.1; thoughts are dropped.
    "thought-closed": (
        "{{ bos_token }}" + _TURN + "{{ '<|user|>' + m.content }}{% else %}"
        "{{ '<|assistant|></think>' + m.content.split('</think>')[-1] + eos_token }}"
        "{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|></think>' }}{% endif %}"
    ),
    # The prompt opens a thought, which answers without one don't have, as in MiniMax-M2.
    "thought-optional": (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.reasoning_content %}"
        "{{ '<think>\n' + m.reasoning_content + '\n</think>\n\n' }}{% endif %}"
        "{{ m.content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
    ),
    # Every answer stands in tags behind an empty thought, as in Hunyuan.
    "thought-tagged": (
        _TURN + "{{ '<|user|>' + m.content }}{% else %}"
        "{{ '<|assistant|><think>\n\n</think>\n<answer>\n' + m.content + '\n</answer>' }}"
        "{{ eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    ),
    # What is marked begins with the prompt's words, and the prompt goes on with a thought.
    "marked-thought-begun": (
        "{% for m in messages %}{% if m.role == 'user' %}{{ '<|user|>' + m.content }}"
        "{% else %}{% generation %}{{ '<|assistant|>' }}{% if m.reasoning_content %}"
        "{{ '<think>\n' + m.reasoning_content + '\n</think>\n\n' }}{% endif %}"
        "{{ m.content + '<|end|>' }}{% endgeneration %}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|><think>\n' }}{% endif %}"
    ),
    # The marks of turns are words: the tokenizer was never extended by them.
    "words": (
        "{% for m in messages %}{{ '[' + m.role + ']\n' + m.content + '\n[over]\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '[assistant]\n' }}{% endif %}"
    ),
    "endless": _TURN + "{{ m.content + '\n' }}{% else %}{{ m.content }}{% endif %}{% endfor %}",
}
"""By the name of the models that have them, or by what is odd in them."""


def byte_level(*, adds_bos: bool = False, eos: str = "</s>", special: bool = True) -> Any:
    """A byte-level BPE tokenizer, as GPT-2, Llama 3 and Qwen have.

    ``special``: whether the marks of turns are called special, or were only added.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet
    )
    return _trained(raw, trainer, adds_bos, eos, special)


def sentencepiece(*, adds_bos: bool = True, eos: str = "</s>") -> Any:
    """One that puts a blank before texts and makes blanks visible, as Llama 2 and Mistral have."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers

    raw = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    raw.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    raw.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    alphabet = list("abcdefghijklmnopqrstuvwxyzACEINQRSTU[]()/:#<>|_-' \n0123456789")
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<unk>", "<s>", "</s>"], initial_alphabet=alphabet
    )
    return _trained(raw, trainer, adds_bos, eos)


def _trained(raw: Any, trainer: Any, adds_bos: bool, eos: str, special: bool = True) -> Any:
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    trainer.show_progress = False
    raw.train_from_iterator([*WORDS.split(), "\n", "\n\n"] * 8, trainer)
    if adds_bos:
        begin = ("<s>", raw.token_to_id("<s>"))
        raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[begin])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")
    tokenizer.add_tokens(ENDS, special_tokens=special)
    tokenizer.eos_token, tokenizer.pad_token = eos, "<|endoftext|>"
    return tokenizer


TOKENIZERS = {
    "bytes": byte_level,
    "bytes-with-bos": lambda: byte_level(adds_bos=True),
    "pieces": lambda: sentencepiece(adds_bos=False),
    "pieces-with-bos": sentencepiece,
}


def tokenizer_of(kind: str, template: str) -> Any:
    """A tokenizer with a chat template, both by name."""
    tokenizer = TOKENIZERS[kind]()
    tokenizer.chat_template = TEMPLATES[template]
    return tokenizer


def talk(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def small_model(tokenizer: Any, seed: int = 0) -> Any:
    """A random Llama that generates to the tokenizer's own end token."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def framing(tokenizer: Any, texts: str) -> Any:
    """``tokenizer``, which puts these control tokens around ``$A``, every text: "<s> $A </s>"."""
    from tokenizers.processors import TemplateProcessing

    names = [
        (name, tokenizer.convert_tokens_to_ids(name)) for name in texts.split() if name != "$A"
    ]
    frame = TemplateProcessing(single=texts, special_tokens=names)
    tokenizer.backend_tokenizer.post_processor = frame
    return tokenizer


def knowing(tokenizer: Any, talks: Sequence[list[dict[str, str]]], loss_below: float = 0.01) -> Any:
    """A model trained on the supervised tokens of ``talks`` until it knows them by heart."""
    import torch

    from versatune.data.encode import Encoder, EncoderSpec, Example

    examples = Encoder(EncoderSpec.of(tokenizer), 256, "drop").encode(talks)
    assert all(isinstance(example, Example) for example in examples), examples
    longest = max(len(example.ids) for example in examples)
    ids = torch.full((len(examples), longest), tokenizer.pad_token_id)
    labels = torch.full((len(examples), longest), -100)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        for first, end in example.spans:
            labels[row, first:end] = ids[row, first:end]
    model = small_model(tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(500):
        loss = model(ids, labels=labels).loss
        if loss < loss_below:
            return model.eval()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    raise AssertionError(f"not known by heart: {loss}")


def saved(folder: Path, tokenizer: Any, model: Any) -> Any:
    """A checkpoint folder of both."""
    from versatune.modeling.checkpoints import CheckpointRef

    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return CheckpointRef.of_folder(folder)
