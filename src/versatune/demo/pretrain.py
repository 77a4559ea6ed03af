"""Training a small tokenizer and a small Llama on the sample's corpus.

Each document is one row: begin token, text, end token, padding on the right, which
causal attention never looks back at. So sampling from the begin token yields documents in the
shares in which the corpus holds them, provided that no document weighs more than another: a step
takes documents of any length, and its loss is summed over its tokens and divided by the same
number at every step. (Batches of like length are mostly of one domain where domains differ in
length: the model then draws domains with short documents too often, and a mean over each batch
does so too.) To save padding, the shorter and the longer half of a step's documents are passed
one after the other. Packing would need an attention mask by blocks, which made a step on short
documents a fifth slower than plain causal attention, and left a tenth of each row empty besides.
"""

import json
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from versatune.artifacts import replacing
from versatune.demo.pretrain_config import PretrainParams
from versatune.errors import VersatuneError
from versatune.modeling.checkpoints import PLAIN_CHAT_TEMPLATE
from versatune.modeling.losses import IGNORE, Targets, TokenLoss
from versatune.modeling.precision import fast_in_bfloat16
from versatune.work import bars

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

logger = logging.getLogger(__name__)

BOS, EOS, PAD = "<s>", "</s>", "<pad>"
PROGRESS = "progress.safetensors"
MAX_GRAD_NORM = 1.0

Rows = list[list[int]]


def pretrain(params: "PretrainParams", corpus: Path, folder: Path) -> dict[str, Any]:
    """Train tokenizer and model on ``corpus`` (JSONL with ``text``) and save them in ``folder``.

    A folder with progress from a run that was killed is gone on from; the result is bit for bit
    that of a run that was not (with as many threads). Raises VersatuneError when a document has
    more than ``params.max_length`` tokens or the corpus is empty.
    """
    with corpus.open(encoding="utf-8", newline="\n") as lines:  # texts may hold other separators
        texts = [json.loads(line)["text"] for line in lines]
    if not texts:
        raise VersatuneError(f"{corpus} holds no documents to pretrain on.")
    tokenizer = train_tokenizer(texts, params.vocab_size)
    rows = encode(tokenizer, texts, params.max_length)
    model = new_model(params, tokenizer)
    loss = _train(model, rows, params, folder / PROGRESS)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for left_over in folder.glob(f"*{PROGRESS}*"):
        left_over.unlink()
    return {"parameters": model.num_parameters(), "documents": len(rows), "final_loss": loss}


def train_tokenizer(texts: list[str], vocab_size: int) -> "PreTrainedTokenizerFast":
    """A byte-level BPE tokenizer with begin, end and padding tokens and the plain template."""
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token=BOS, eos_token=EOS, pad_token=PAD
    )
    tokenizer.chat_template = PLAIN_CHAT_TEMPLATE
    return tokenizer


def encode(tokenizer: "PreTrainedTokenizerBase", texts: list[str], max_length: int) -> Rows:
    """Token ids of each document, begin and end token included."""
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    rows = [[tokenizer.bos_token_id, *ids, tokenizer.eos_token_id] for ids in encoded]
    longest = max(map(len, rows))
    if longest > max_length:
        raise VersatuneError(
            f"the longest document of the corpus has {longest} tokens, more than "
            f"base_model.pretrain.max_length = {max_length}: raise it."
        )
    return rows


def new_model(params: "PretrainParams", tokenizer: "PreTrainedTokenizerBase") -> "LlamaForCausalLM":
    """A Llama with random weights, settled by ``params.seed``; torch's own state is kept."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=params.hidden_size,
        intermediate_size=params.intermediate_size,
        num_hidden_layers=params.num_hidden_layers,
        num_attention_heads=params.num_attention_heads,
        num_key_value_heads=params.num_attention_heads,
        max_position_embeddings=params.max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(params.seed)
        return LlamaForCausalLM(config)


def plan_epoch(rows: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Batches of row numbers: every row once, in an order by chance.

    A pure function of its arguments, so that a resumed run goes on in the same order.
    """
    order = np.random.default_rng([seed, epoch]).permutation(rows).tolist()
    return [order[start : start + batch_size] for start in range(0, rows, batch_size)]


def learning_rate(step: int, steps: int, peak: float, warmup_ratio: float) -> float:
    """Linear rise to ``peak`` over the warm-up, then half a cosine to 0; ``step`` counts from 0."""
    warmup = round(steps * warmup_ratio)
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


@dataclass
class _State:
    """What a run needs to continue: the model, its optimiser, and how many steps were taken."""

    model: "LlamaForCausalLM"
    optimizer: torch.optim.Optimizer
    tokens_per_step: float
    """Predicted tokens of a mean batch: what each step's summed loss is divided by."""
    bf16: bool = False
    """Whether passes compute in bfloat16."""
    step: int = 0

    def __post_init__(self) -> None:
        self.loss = TokenLoss(self.model)

    def save(self, path: Path) -> None:
        """Write everything to one safetensors file, in one step."""
        tensors = {}
        for name, weight in self.model.named_parameters():
            tensors[f"weight/{name}"] = weight.data
            for key in ("exp_avg", "exp_avg_sq"):
                tensors[f"{key}/{name}"] = self.optimizer.state[weight][key]
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata={"step": str(self.step)})

    def load(self, path: Path) -> None:
        """Take over what :meth:`save` wrote; a damaged file is reported and left unused."""
        try:
            with safe_open(path, framework="pt") as file:
                step = int(file.metadata()["step"])
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
            logger.warning("%s can't be read (%s): pretraining starts over.", path, error)
            return
        self.step = step
        for name, weight in self.model.named_parameters():
            weight.data.copy_(tensors[f"weight/{name}"])
            self.optimizer.state[weight] = {
                "step": torch.tensor(float(step)),
                "exp_avg": tensors[f"exp_avg/{name}"],
                "exp_avg_sq": tensors[f"exp_avg_sq/{name}"],
            }


def _train(
    model: "LlamaForCausalLM", rows: Rows, params: "PretrainParams", progress: Path
) -> float:
    """Train to the end and return the last step's loss (nats a token)."""
    lengths = [len(row) for row in rows]
    steps_per_epoch = math.ceil(len(rows) / params.per_device_train_batch_size)
    steps = max(1, round(steps_per_epoch * params.num_train_epochs))
    predicted = sum(lengths) - len(lengths)
    bf16 = fast_in_bfloat16() if params.bf16 is None else params.bf16
    state = _State(model, _optimizer(model, params), predicted / steps_per_epoch, bf16)
    if progress.is_file():
        state.load(progress)
        logger.info("Pretraining continues at step %d of %d.", state.step, steps)
    model.train()
    loss = math.nan
    started, tokens, paced = time.monotonic(), 0, bars.Paced(60)
    with bars.bar(steps, "pretraining", "steps", done=state.step) as bar:
        for batch in _batches(len(rows), params, state.step, steps):
            rate = learning_rate(state.step, steps, params.learning_rate, params.warmup_ratio)
            loss = _step(state, [rows[i] for i in batch], rate)
            state.step += 1
            tokens += sum(lengths[i] for i in batch)
            bar.set_description_str(f"pretraining · loss {loss:.2f}", refresh=False)
            bar.update()
            if paced.due() and bar.disable:
                logger.info("Pretraining: step %d of %d, loss %.2f", state.step, steps, loss)
            if state.step % params.save_steps == 0 and state.step < steps:
                state.save(progress)
    logger.info(
        "Pretrained %s parameters in %d steps: loss %.3f, %s tokens/s.",
        f"{model.num_parameters():,}",
        steps,
        loss,
        f"{tokens / max(time.monotonic() - started, 1e-9):,.0f}",
    )
    return loss


def _batches(rows: int, params: "PretrainParams", done: int, steps: int) -> Iterator[list[int]]:
    """The batches of steps ``done`` to ``steps - 1``."""
    size = params.per_device_train_batch_size
    per_epoch = math.ceil(rows / size)
    for epoch in range(done // per_epoch, math.ceil(steps / per_epoch)):
        plan = plan_epoch(rows, size, params.seed, epoch)
        first = max(done - epoch * per_epoch, 0)
        yield from plan[first : steps - epoch * per_epoch]


def _step(state: _State, rows: Rows, rate: float) -> float:
    """One optimiser step, in which every token weighs as in any other; returns their mean loss."""
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    ordered = sorted(rows, key=len)
    middle = len(rows) // 2
    total = sum(_backward(state, half) for half in (ordered[:middle], ordered[middle:]) if half)
    torch.nn.utils.clip_grad_norm_(state.model.parameters(), MAX_GRAD_NORM)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    return total / (sum(map(len, rows)) - len(rows))


def _backward(state: _State, rows: Rows) -> float:
    """Add the gradient of these rows; returns the sum of their tokens' losses, in nats."""
    width = max(map(len, rows))
    pad = int(state.model.config.pad_token_id or 0)
    ids = np.array([row + [pad] * (width - len(row)) for row in rows])
    targets = Targets.of(np.array([row + [IGNORE] * (width - len(row)) for row in rows]))
    with torch.autocast("cpu", torch.bfloat16, enabled=state.bf16):
        nats = state.loss(
            torch.from_numpy(ids),
            torch.from_numpy(targets.positions),
            torch.from_numpy(targets.tokens),
        ).sum()
    (nats / state.tokens_per_step).backward()
    return float(nats.detach())


def _optimizer(model: "LlamaForCausalLM", params: "PretrainParams") -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": params.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=params.learning_rate, betas=(0.9, 0.95), fused=True)
