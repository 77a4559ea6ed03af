"""How fast training is: real (non-pad) tokens a second, as ratios in one run.

    python -m tests.benchmarks.bench_training --model FOLDER --data FOLDER [--steps N --repeats N]
        [--dtype bfloat16 float32] [--clock cpu]

``--model`` is a Hugging Face folder (SmolLM2-135M in the README), ``--data`` a folder of JSONL
instruction rows, a file a domain. Once, ``--steps`` steps are planned; in turns, ``--repeats``
times, each contender trains the examples of that plan in its order, each once, in every
``--dtype`` (auto: what the device is fast in). With ``--clock cpu`` a second is one of this
process's processor time, which other processes hardly disturb: take one thread
(OMP_NUM_THREADS=1) then, since threads that wait count too. A contender's first step is not
counted:

* ours: packed rows as planned, loss at supervised positions;
* ours fused: the same without attention by blocks (``training.cpu_attention``), which bfloat16 on a
  CPU alone takes;
* bare: forward, backward and AdamW with full logits; the same tokens end to end, cut to full rows
  of the same shape (what is left of a row at the end is dropped);
* trl packed, trl padded: TRL's SFTTrainer (`pip install versatune[bench]`). Packed, it arranges
  the examples in rows of its own; padded, a row is an example, so that it takes more steps.

``--contenders`` leaves some out.

Then what adaptivity adds to a round at the default settings: held-out measurement, planning and
the update, as a share of the round's time; ``--speed-only`` leaves it out. Medians over the repeats
are printed.
"""

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from versatune.artifacts import FolderRef
from versatune.data.clean import clean
from versatune.data.config import CleanParams, Domains, TokenizeParams
from versatune.data.store import TokenizedSplit
from versatune.data.tokenize import tokenize
from versatune.modeling.checkpoints import load_model, load_tokenizer
from versatune.modeling.heldout import HeldOut, heldout_losses
from versatune.training import attention
from versatune.training.attention import choose_layout
from versatune.training.batches import Collator, Row
from versatune.training.config import TrainParams
from versatune.training.job import MixtureInputs
from versatune.training.precision import resolved
from versatune.training.rounds import Mixture
from versatune.training.trainer import MixtureTrainer, arguments
from versatune.work import make_folder

Speed = tuple[int, float]
"""Real tokens, seconds."""

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}

Contender = Callable[[Path, TokenizedSplit, list[Row], TrainParams], Speed]
"""Trains the examples of the rows, in their order, and tells how fast it was."""


class Watch(TrainerCallback):
    """Times the steps after the first and counts the tokens fed to them."""

    clock: Callable[[], float] = staticmethod(CLOCKS["wall"])

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.times: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.times.append(self.clock())

    def counting(self, collate: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """``collate`` that notes the tokens of its examples (before any padding)."""

        def counted(examples: list[dict[str, Any]]) -> Any:
            self.tokens.append(sum(_tokens(e["input_ids"]) for e in examples))
            return collate(examples)

        return counted

    def speed(self) -> Speed:
        return sum(self.tokens[1 : len(self.times)]), self.times[-1] - self.times[0]


def _tokens(ids: Any) -> int:
    return sum(map(len, ids)) if len(ids) and not isinstance(ids[0], int) else len(ids)


def make_store(model: Path, data: Path, out: Path, max_length: int) -> FolderRef:
    """The rows as this project reads them."""
    domains = Domains.model_validate(
        {
            path.stem: {"description": path.stem, "sources": [{"path": str(path)}]}
            for path in sorted(data.glob("*.jsonl"))
        }
    )
    cleaned = make_folder(
        clean(domains, CleanParams(seed=0, max_rows=1500, max_reject_rate=1)), out / "clean"
    )
    params = TokenizeParams(max_length=max_length)
    return make_folder(tokenize(cleaned, model, load_tokenizer, params), out / "store")


def mixture_of(params: TrainParams, train: TokenizedSplit) -> Mixture:
    mixture = Mixture(params, train, MixtureInputs(), params.per_device_train_batch_size)
    same = HeldOut(nats_per_token=2.0, bits_per_byte=1.0, stderr=0.0, n_rows=1, n_tokens=1)
    mixture.begin(dict.fromkeys(train.domains, same), 0.0)
    return mixture


def ours(model: Path, train: TokenizedSplit, rows: list[Row], params: TrainParams) -> Speed:
    watch = Watch()
    net: Any = load_model(model, dtype=params.dtype)
    layout = choose_layout(net, params.packing, params.max_length)
    with tempfile.TemporaryDirectory() as folder:
        trainer = MixtureTrainer(
            net,
            arguments(params, Path(folder)),
            params,
            Path(folder),
            train,
            watch.counting(Collator(layout)),  # type: ignore[arg-type]
            lambda _: rows,
        )
        trainer.add_callback(watch)
        trainer.train()
    return watch.speed()


def fused(model: Path, train: TokenizedSplit, rows: list[Row], params: TrainParams) -> Speed:
    by_blocks = attention._by_blocks
    attention._by_blocks = lambda *_: False
    try:
        return ours(model, train, rows, params)
    finally:
        attention._by_blocks = by_blocks


def bare(model: Path, train: TokenizedSplit, rows: list[Row], params: TrainParams) -> Speed:
    """Full rows of real tokens, every logit, nothing else."""
    net: Any = load_model(model, dtype=params.dtype).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=params.learning_rate, fused=True)
    watch = Watch()
    for ids in full_rows(train, rows, params.max_length).split(params.per_device_train_batch_size):
        net(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        watch.tokens.append(ids.numel())
        watch.on_step_end()
    return watch.speed()


def full_rows(train: TokenizedSplit, rows: list[Row], length: int) -> torch.Tensor:
    """Shape (full rows, length): the tokens of the examples end to end."""
    ids = torch.cat([torch.as_tensor(train.dataset[i]["input_ids"]) for row in rows for i in row])
    return ids[: len(ids) // length * length].view(-1, length).long()


def trl(packing: bool) -> Contender:
    def train_it(model: Path, train: TokenizedSplit, rows: list[Row], params: TrainParams) -> Speed:
        import datasets
        from trl import SFTConfig, SFTTrainer

        examples = [
            {
                "input_ids": example["input_ids"].tolist(),
                "completion_mask": [int(x) for x in example["labels"] != -100],
            }
            for example in (train.dataset[i] for row in rows for i in row)
        ]
        watch = Watch()
        with tempfile.TemporaryDirectory() as folder:
            trainer = SFTTrainer(
                model=load_model(model, dtype=params.dtype),
                processing_class=load_tokenizer(model),
                train_dataset=datasets.Dataset.from_list(examples),
                args=SFTConfig(
                    output_dir=folder,
                    packing=packing,
                    max_length=params.max_length,
                    per_device_train_batch_size=params.per_device_train_batch_size,
                    num_train_epochs=1,
                    train_sampling_strategy="sequential",
                    learning_rate=params.learning_rate,
                    completion_only_loss=True,
                    gradient_checkpointing=False,
                    bf16=False,
                    use_cpu=True,
                    save_strategy="no",
                    report_to=[],
                    disable_tqdm=True,
                ),
            )
            trainer.data_collator = watch.counting(trainer.data_collator)
            trainer.add_callback(watch)
            trainer.train()
        return watch.speed()

    return train_it


CONTENDERS: dict[str, Contender] = {
    "ours": ours,
    "ours fused": fused,
    "bare": bare,
    "trl packed": trl(True),
    "trl padded": trl(False),
}


def adaptivity(model: Path, store: FolderRef, params: TrainParams, step: float) -> dict[str, float]:
    """Seconds that a round at the default settings spends on adapting, and on its steps."""
    defaults = TrainParams()
    train = TokenizedSplit.load(store, "train")
    full = params.model_copy(update={"steps_per_round": defaults.steps_per_round})
    mixture = mixture_of(full, train)
    net: Any = load_model(model, dtype=params.dtype)
    choose_layout(net, True, params.max_length)
    started = Watch.clock()
    measured = heldout_losses(
        net,
        TokenizedSplit.load(store, "steering"),
        rows_per_domain=defaults.heldout_rows_per_domain,
        batch_tokens=defaults.heldout_batch_tokens,
        progress=False,
    )
    measuring = Watch.clock() - started
    started = Watch.clock()
    mixture.rows(0)
    losses = torch.tensor([entry.nats_per_token for entry in measured.values()]).numpy()
    mixture.finish(defaults.steps_per_round, measured, losses, 0.0, 0.0)
    return {
        "measuring": measuring,
        "planning and update": Watch.clock() - started,
        "steps": step * defaults.steps_per_round,
    }


def _instructions() -> str:
    """What decides which precision is fast on this device."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    has = torch.cpu.get_capabilities()
    named = [name for name in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16") if has.get(name)]
    threads = torch.get_num_threads()
    return f"a CPU with {', '.join(named) or 'none of AVX2, AVX-512 and AMX'}, {threads} thread(s)"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4)
    dtypes = ["auto", "bfloat16", "float32"]
    parser.add_argument("--dtype", choices=dtypes, nargs="+", default=["bfloat16"])
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--speed-only", action="store_true")
    parser.add_argument("--contenders", choices=CONTENDERS, nargs="+", default=list(CONTENDERS))
    options = parser.parse_args()
    if "ours" not in options.contenders:
        parser.error("--contenders: the others are compared with ours, so name it too")
    if any("trl" in name for name in options.contenders) and not importlib.util.find_spec("trl"):
        parser.error("trl can't be imported: pip install versatune[bench], or leave it out")
    return options


def _report_speed(found: dict[str, list[float]]) -> None:
    """The table of one precision."""
    for name, speeds in found.items():
        ratios = [a / b for a, b in zip(found["ours"], speeds, strict=True)]
        print(
            f"{name:>12}: {statistics.median(speeds):7.1f}  "
            f"ours / it = {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )


def _report_adaptivity(
    params: TrainParams, found: dict[str, list[float]], model: Path, store: FolderRef
) -> None:
    tokens_a_step = params.per_device_train_batch_size * params.max_length
    parts = adaptivity(model, store, params, tokens_a_step / statistics.median(found["ours"]))
    added = parts["measuring"] + parts["planning and update"]
    print(
        f"a round at the default settings: {parts['steps']:.0f} s of steps, "
        f"{parts['measuring']:.1f} s measuring, {parts['planning and update']:.2f} s planning "
        f"and update: adaptivity takes {added / (added + parts['steps']):.1%} of the time",
        flush=True,
    )


def main() -> None:
    options = _arguments()
    Watch.clock = staticmethod(CLOCKS[options.clock])
    settings = [
        resolved(
            TrainParams(
                rounds=1,
                steps_per_round=options.steps,
                max_length=options.max_length,
                per_device_train_batch_size=options.batch,
                dtype=dtype,
                loss_guard=None,
                strategy={"name": "proportional"},  # type: ignore[arg-type]
            )
        )
        for dtype in options.dtype
    ]
    print(f"{' and '.join(params.dtype for params in settings)} on {_instructions()}")
    contenders = {name: CONTENDERS[name] for name in options.contenders}
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(options.model, options.data, Path(folder), options.max_length)
        train = TokenizedSplit.load(store, "train")
        found: list[dict[str, list[float]]] = [{name: [] for name in contenders} for _ in settings]
        for _ in range(options.repeats):
            for name, contender in contenders.items():
                for params, speeds in zip(settings, found, strict=True):
                    rows = mixture_of(params, train).rows(0)
                    tokens, seconds = contender(options.model, train, rows, params)
                    speeds[name].append(tokens / seconds)
                    rate = f"{tokens / seconds:7.1f} tokens/s"
                    print(f"{name:>12}, {params.dtype}: {rate}", flush=True)
        for params, speeds in zip(settings, found, strict=True):
            shape = f"{options.batch} x {options.max_length}"
            print(f"\n{params.dtype}: real tokens/s, median of {options.repeats}, {shape}")
            _report_speed(speeds)
            if not options.speed_only:
                _report_adaptivity(params, speeds, options.model, store)


if __name__ == "__main__":
    main()
