"""The probe: rounds of samples and judgements until the intervals are narrow enough."""

import logging
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import SecretStr
from safetensors.numpy import load_file, save_file

from versatune.artifacts import FolderRef, replacing, to_jsonable
from versatune.data.config import Domains
from versatune.errors import VersatuneError
from versatune.probing.config import ProbeParams
from versatune.probing.estimate import Estimate, estimate_shares, narrow_enough
from versatune.probing.judges.base import (
    About,
    Background,
    Judge,
    Judgement,
    Labelled,
    Status,
    with_new_names,
)
from versatune.samplers.base import Sample, Sampler, draw, read_samples
from versatune.work import Piece, make_folder

logger = logging.getLogger(__name__)

OnRound = Callable[[int, Estimate], None]
STATUSES: tuple[Status, ...] = ("ok", "empty", "refused", "unparseable", "failed")
LEFT_OUT = (
    "probe.known_distribution leaves out the probe: move the folder elsewhere to do without, "
    "or set probe.known_distribution to null to finish it."
)


class JudgementStore:
    """What the judge said, batch by batch, next to the samples; grows with them.

    A text that got no answer is asked about once a run: it counts as ``failed`` for the run, and
    the next one tries again.
    """

    def __init__(self, folder: Path, open_judge: Callable[[], Judge]) -> None:
        self.folder = folder
        self._judge = cache(open_judge)
        self._asked: set[int] = set()

    def of(self, batch: int, samples: list[Sample]) -> Judgement:
        """The judgement of a whole batch, made now if it was not there or lacks answers."""
        file = self.folder / f"wave_{batch:05d}.safetensors"
        kept = _read(file) if file.is_file() else None
        if kept is None or ("failed" in kept.status and batch not in self._asked):
            kept = judge_samples(self._judge(), samples)
            tensors = {
                "probabilities": kept.probabilities,
                "status": np.array([STATUSES.index(s) for s in kept.status], dtype=np.int64),
                "vocab_coverage": kept.vocab_coverage,
            }
            with replacing(file) as temporary:
                save_file(tensors, temporary)
            self._asked.add(batch)
        return kept


def any_failed(judgements: FolderRef) -> bool:
    """Whether a text of any batch is without an answer."""
    return any("failed" in _read(file).status for file in _files_of(judgements.path))


def _files_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("wave_*.safetensors"))


def _read(file: Path) -> Judgement:
    kept = with_new_names(load_file(file))
    status = [STATUSES[i] for i in kept["status"]]
    return Judgement(kept["probabilities"], status, kept["vocab_coverage"])


def judge_samples(judge: Judge, samples: list[Sample]) -> Judgement:
    """Judge what can be judged: empty samples get the status ``empty`` and no probabilities."""
    full = [i for i, s in enumerate(samples) if s.flag != "empty"]
    made = judge.judge([samples[i].text for i in full])
    k = made.probabilities.shape[1]
    probabilities = np.full((len(samples), k), np.nan)
    vocab_coverage = np.full(len(samples), np.nan)
    status: list[Status] = ["empty"] * len(samples)
    probabilities[full] = made.probabilities
    vocab_coverage[full] = made.vocab_coverage
    for i, s in zip(full, made.status, strict=True):
        status[i] = s
    return Judgement(probabilities, status, vocab_coverage)


def join(parts: list[Judgement], n: int) -> Judgement:
    """The first ``n`` of several judgements in a row."""
    return Judgement(
        np.concatenate([p.probabilities for p in parts])[:n],
        [s for p in parts for s in p.status][:n],
        np.concatenate([p.vocab_coverage for p in parts])[:n],
    )


def draw_samples(sampler: Sampler, params: ProbeParams, rounds: int | None = None) -> Piece:
    """The samples of the first rounds, by default of those before the first look."""
    n = (rounds or params.rounds.min_rounds) * params.rounds.samples_per_round
    return draw(sampler, params.seed, batch_size(params), n)


def about_judge(
    params: ProbeParams,
    keep: Path,
    secret: SecretStr,
    domains: Domains | None = None,
    samples: FolderRef | None = None,
    key: str = "probe.judge",
) -> About:
    """What a judge may need; ``domains`` and ``samples`` to train it.

    ``samples``: those before the first look stand for a domain without rows.
    """
    n = params.rounds.min_rounds * params.rounds.samples_per_round
    return About(
        descriptions=domains.descriptions if domains else {},
        seed=params.seed,
        keep=keep,
        api_key=secret.get_secret_value(),
        key=key,
        background=None if samples is None else Background(samples, n),
    )


def batch_size(params: ProbeParams) -> int:
    """Samples of a batch."""
    return min(params.sampling.batch_size, params.rounds.samples_per_round)


def judge_in_rounds(
    sampler: Sampler,
    samples: FolderRef,
    judge: FolderRef,
    params: ProbeParams,
    open_judge: Callable[[], Judge],
    on_round: OnRound | None = None,
) -> Piece:
    """Judge ``samples`` round by round, drawing more into their folder until it is enough.

    What was drawn or judged before, in this run or an earlier one, is used again; texts that got
    no answer in an earlier run are asked about again. The metadata say how many samples count
    (``n``), after how many ``rounds`` it stopped and why (``stopped``: ``half_width`` or
    ``limit``).
    """
    asked = to_jsonable({"rounds": params.rounds, "estimate": params.estimate})

    def judged(folder: Path) -> dict[str, Any]:
        store, size = JudgementStore(folder, open_judge), batch_size(params)
        labelled, rounds = Labelled.load(judge), params.rounds
        for done in range(1, rounds.max_rounds + 1):
            make_folder(draw_samples(sampler, params, done), samples.path)
            n = done * rounds.samples_per_round
            drawn = read_samples(samples.path)[: -(-n // size) * size]
            batches = [drawn[i : i + size] for i in range(0, len(drawn), size)]
            made = join([store.of(w, part) for w, part in enumerate(batches)], n)
            if done < rounds.min_rounds:
                continue
            found = _look(made, labelled, params)
            if on_round:
                on_round(done, found)
            widest = float(found.half_widths.max())
            logger.info("probe: round %d, %d samples, widest interval ±%.3f", done, n, widest)
            narrow = narrow_enough(found, int(made.ok.sum()), rounds.half_width)
            if narrow:
                break
        stopped = "half_width" if narrow else "limit"
        return {"asked": asked, "n": n, "rounds": done, "stopped": stopped, "half_width": widest}

    return Piece(
        inputs={"samples": samples.fingerprint, "judge": judge.fingerprint},
        make=judged,
        enough=lambda ref: ref.metadata["asked"] == asked and not any_failed(ref),
    )


def load_probe(samples: FolderRef, judgements: FolderRef) -> tuple[list[Sample], Judgement]:
    """The samples and judgements that count, in order."""
    n = judgements.metadata["n"]
    return read_samples(samples.path)[:n], load_judgements(judgements.path, n)


def load_judgements(folder: Path, n: int) -> Judgement:
    """The first ``n`` judgements that a :class:`JudgementStore` keeps in ``folder``, in order."""
    return join([_read(file) for file in _files_of(folder)], n)


def _look(made: Judgement, labelled: Labelled, params: ProbeParams) -> Estimate:
    if not made.ok.any():
        counts = Counter(made.status)
        raise VersatuneError(
            f"none of {len(made.status)} samples could be judged ("
            + ", ".join(f"{number} {status}" for status, number in counts.items())
            + "): look at what the base model says (catalog entry `samples`), begin "
            "its sequences with another token (probe.sampling.start), or take another judge."
        )
    return estimate_shares(
        made.probabilities[made.ok],
        labelled,
        params.estimate.correction,
        params.estimate.bootstrap,
        params.seed,
    )


def facts_of(samples: list[Sample]) -> dict[str, Any]:
    """Counts of odd samples, by what is odd."""
    return {
        "empty": sum(s.flag == "empty" for s in samples),
        "repeated": len(samples) - len({s.text for s in samples}),
        "loop": sum(s.flag == "loop" for s in samples),
        "cut_at_limit": sum(not s.ended for s in samples),
        "mean_tokens": float(np.mean([s.n_tokens for s in samples])),
    }
