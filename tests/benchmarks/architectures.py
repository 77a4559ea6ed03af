"""Which architectures work: all that AutoModelForCausalLM loads, tiny, from rows to a saved model.

    python -m tests.benchmarks.architectures [KIND ...] [--part 1/4] [--out FILE]

Each kind of model (two layers, random weights) is trained whole and by adapters, in float32 and in
bfloat16: its rows are tokenised, two steps are trained in two rounds, the saved folder is loaded,
its held-out losses measured and a question asked. A line each says which layout was chosen and what
came of it: ``works``, ``refused`` with the sentence a user reads, or ``FAILED`` with the error.
``not made`` is a kind whose configuration does not get small, or that needs a package that is not
installed. Exits 1 when anything failed.
"""

import argparse
import json
import logging
import os
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.helpers.architectures import architectures, save_architecture
from tests.helpers.tiny import save_tiny
from versatune.artifacts import FolderRef
from versatune.errors import VersatuneError
from versatune.modeling.checkpoints import CheckpointRef, load_tokenizer
from versatune.work import make_folder

SECONDS = 120
"""A kind that takes longer than this has failed."""

QUESTIONS = [
    {"question": "law question 1", "choices": ["loan", "court"], "answer": 0},
    {"question": "law question 2", "choices": ["the court", "a loan"], "answer": 1},
]


class Bench:
    """The data that all kinds share, and the way of one through all stages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tokenizer = load_tokenizer(save_tiny(folder / "tokenizer", 400))
        self.clean = _clean_rows(folder)

    def outcome(self, kind: str, dtype: str, adapters: bool) -> tuple[str, str]:
        """The layout, and what came of it."""
        chosen: list[str] = []
        folder = self.folder / kind / f"{dtype}-{'lora' if adapters else 'full'}"
        try:
            with _at_most(SECONDS):
                self._go(kind, dtype, adapters, folder, chosen)
        except _NotMadeError as error:
            return "", f"not made: {error}"
        except VersatuneError as error:
            return "".join(chosen[-1:]), f"refused: {error}"
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            at = traceback.extract_tb(error.__traceback__)[-1]
            last = str(error).strip().split("\n")[0][:200]
            where = f"{Path(at.filename).name}:{at.lineno}"
            return "".join(chosen[-1:]), f"FAILED: {type(error).__name__}: {last} ({where})"
        return "".join(chosen[-1:]), "works"

    def _go(self, kind: str, dtype: str, adapters: bool, folder: Path, chosen: list[str]) -> None:
        from versatune.training import run

        lora = {"lora": {"r": 4}, "bf16": dtype == "bfloat16"} if adapters else {}
        real = run.choose_layout
        run.choose_layout = lambda *a, **k: chosen.append(real(*a, **k)) or chosen[-1]
        try:
            store = self.train(kind, dtype, folder, **lora)
        finally:
            run.choose_layout = real
        self._measure(CheckpointRef.of_folder(folder), store, dtype)

    def train(self, kind: str, dtype: str, folder: Path, **changes: Any) -> FolderRef:
        """Two steps in two rounds; returns the tokenised rows."""
        from versatune.data.config import TokenizeParams
        from versatune.data.tokenize import tokenize
        from versatune.training import TrainParams, train

        base = self._base(kind, dtype)
        settings = TokenizeParams(max_length=64, num_workers=1)
        rows = tokenize(self.clean, base.path, load_tokenizer, settings)
        store = make_folder(rows, base.path.with_name(f"{dtype}-rows"))
        params = {
            **{"rounds": 2, "steps_per_round": 1, "max_length": 64, "logging_steps": 1},
            **{"per_device_train_batch_size": 2, "heldout_rows_per_domain": 4},
            **{"learning_rate": 1e-3, "loss_guard": None, "dtype": dtype},
        }
        train(store, base, TrainParams.model_validate({**params, **changes}), folder=folder)
        return store

    def _base(self, kind: str, dtype: str) -> CheckpointRef:
        path = self.folder / kind / dtype
        if path.is_dir():
            return CheckpointRef.of_folder(path)
        try:
            return save_architecture(kind, self.tokenizer, path, dtype)
        except Exception as error:
            raise _NotMadeError(str(error).strip().split("\n")[0][:160]) from error

    def _measure(self, model: CheckpointRef, store: FolderRef, dtype: str) -> None:
        from versatune.evaluation.config import EvaluateParams
        from versatune.evaluation.measure import evaluate_checkpoint
        from versatune.evaluation.tasks import read_task

        questions = self.folder / "questions.jsonl"
        questions.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
        evaluate_checkpoint(
            model,
            model="tuned",
            store=store,
            tasks=[read_task("law", "questions", questions)],
            params=EvaluateParams.model_validate({"rows_per_domain": 4, "dtype": dtype}),
            folder=self.folder / "evaluation",
        )


class _NotMadeError(Exception):
    pass


def _clean_rows(folder: Path) -> FolderRef:
    from versatune.data.clean import clean
    from versatune.data.config import CleanParams, Domains

    domains = {}
    for name in ("law", "other"):
        path = folder / f"{name}.jsonl"
        rows = [
            {"prompt": f"{name} question {i}", "completion": f"the answer {i * 3} of a {name}"}
            for i in range(24)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        domains[name] = {"description": name, "sources": [{"path": str(path)}]}
    params = CleanParams(seed=0, min_validation_rows=4, near_duplicate_threshold=None)
    return make_folder(clean(Domains.model_validate(domains), params), folder / "clean")


@contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TimeoutError(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("kinds", nargs="*", help="all when none is named")
    parser.add_argument("--part", default="1/1", help="the n-th of so many parts of the kinds")
    parser.add_argument("--out", type=Path, help="append the table to a file, too")
    given = parser.parse_args()
    number, of = map(int, given.part.split("/"))
    kinds = (given.kinds or architectures())[number - 1 :: of]
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    import datasets

    datasets.disable_progress_bars()
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        for kind in kinds:
            for dtype in ("float32", "bfloat16"):
                for adapters in (False, True):
                    layout, came = bench.outcome(kind, dtype, adapters)
                    counts[came.split(":")[0]] += 1
                    cells = (kind, dtype, "LoRA" if adapters else "full", layout or "-", came)
                    line = "| " + " | ".join(cells) + " |"
                    print(line, flush=True)
                    if given.out:
                        with given.out.open("a") as handle:
                            handle.write(line + "\n")
    print(", ".join(f"{n} {what}" for what, n in counts.most_common()))
    return 1 if counts["FAILED"] else 0


if __name__ == "__main__":
    sys.exit(main())
