"""The probe: rounds of samples and judgements until the intervals are narrow enough."""

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from versatune.artifacts import INPUTS, MANIFEST, FolderRef, WorkFolder, plain, read_json
from versatune.errors import VersatuneError
from versatune.modeling.checkpoints import CheckpointRef
from versatune.probing.config import ProbeParams
from versatune.probing.estimate import Estimate, estimate_shares, narrow_enough
from versatune.probing.judges.base import Judge, Judgement, Labelled, Status
from versatune.probing.sampling import Sample, SampleStore, make_sampler

logger = logging.getLogger(__name__)

OnRound = Callable[[int, Estimate], None]
STATUSES: tuple[Status, ...] = ("ok", "empty", "refused", "unparseable", "failed")
SAMPLES, JUDGEMENTS, JUDGE = "samples", "judgements", "judge"
SKIPPED = {"skipped": True}
"""Inputs and facts of a folder whose stage was not needed."""
ANSWERS = "answers"
"""Where a judge that has to be paid keeps its answers: beside the folders that are made anew when
the rows or the samples change, since an answer depends on neither."""


class JudgementStore:
    """What the judge said, wave by wave, next to the samples; grows with them.

    A text that got no answer is asked about once a run: it counts as ``failed`` for the run, and
    the next one tries again.
    """

    def __init__(self, work: WorkFolder, open_judge: Callable[[], Judge]) -> None:
        self.work = work
        self._open = open_judge
        self._judge: Judge | None = None
        self._asked: set[int] = set()

    @property
    def failed(self) -> bool:
        """Whether a text of any wave is without an answer."""
        return any("failed" in _read(file).status for file in _waves(self.work.path))

    def of(self, wave: int, samples: list[Sample]) -> Judgement:
        """The judgement of a whole wave, made now if it was not there or lacks answers."""
        file = self.work.path / f"wave_{wave:05d}.safetensors"
        kept = _read(file) if file.is_file() else None
        if kept is None or ("failed" in kept.status and wave not in self._asked):
            self._judge = self._judge or self._open()
            made = judge_samples(self._judge, samples)
            if kept is not None:
                self.work.reopen()
            self._write(file, made)
            self._asked.add(wave)
            kept = _read(file)
        return kept

    def _write(self, file: Path, made: Judgement) -> None:
        codes = np.array([STATUSES.index(s) for s in made.status], dtype=np.int64)
        temporary = file.with_suffix(".tmp")
        save_file(
            {
                "probabilities": np.ascontiguousarray(made.probabilities),
                "status": codes,
                "familiarity": np.ascontiguousarray(made.familiarity),
            },
            temporary,
        )
        temporary.replace(file)


def _waves(folder: Path) -> list[Path]:
    return sorted(folder.glob("wave_*.safetensors"))


def _read(file: Path) -> Judgement:
    kept = load_file(file)
    status = [STATUSES[i] for i in kept["status"]]
    return Judgement(kept["probabilities"], status, kept["familiarity"])


def judge_samples(judge: Judge, samples: list[Sample]) -> Judgement:
    """Judge what can be judged: empty samples get the status ``empty`` and no probabilities."""
    full = [i for i, s in enumerate(samples) if s.flag != "empty"]
    made = judge.judge([samples[i].text for i in full])
    k = made.probabilities.shape[1]
    probabilities = np.full((len(samples), k), np.nan)
    familiarity = np.full(len(samples), np.nan)
    status: list[Status] = ["empty"] * len(samples)
    probabilities[full] = made.probabilities
    familiarity[full] = made.familiarity
    for i, s in zip(full, made.status, strict=True):
        status[i] = s
    return Judgement(probabilities, status, familiarity)


def join(parts: list[Judgement], n: int) -> Judgement:
    """The first ``n`` of several judgements in a row."""
    return Judgement(
        np.concatenate([p.probabilities for p in parts])[:n],
        [s for p in parts for s in p.status][:n],
        np.concatenate([p.familiarity for p in parts])[:n],
    )


def run_probe(
    base: CheckpointRef,
    judge: FolderRef,
    params: ProbeParams,
    open_judge: Callable[[Path], Judge],
    on_round: OnRound | None = None,
    api_key: str = "",
) -> tuple[FolderRef, FolderRef]:
    """Sample and judge in rounds; returns the samples' and the judgements' folders.

    What was drawn or judged before, in this run or an earlier one, is used again; texts that got
    no answer in an earlier run are asked about again. The facts of
    the judgements say how many samples count (``n``), after how many ``rounds`` it stopped and
    why (``stopped``: ``half_width`` or ``limit``). ``open_judge`` gets the folder it may keep
    things in; ``api_key`` is for a served base model.
    """
    size = min(params.sampling.batch_size, params.rounds.samples_per_round)
    sampler = make_sampler(base, params.sampling, api_key)
    store = SampleStore.open(params.folder / SAMPLES, sampler, params.seed, size)
    work = WorkFolder.open(
        params.folder / JUDGEMENTS,
        {"samples": store.work.fingerprint, "judge": judge.fingerprint},
    )
    asked = plain({"rounds": params.rounds, "estimate": params.estimate})
    judgements = JudgementStore(work, lambda: open_judge(params.folder / ANSWERS))
    done_before = store.work.complete and work.complete and work.ref.facts["asked"] == asked
    if done_before and not judgements.failed:
        return store.work.ref, work.ref
    labelled = Labelled.load(judge)
    rounds = params.rounds
    for done in range(1, rounds.max_rounds + 1):
        n = done * rounds.samples_per_round
        samples = store.first(n, whole_waves=True)
        waves = [samples[i : i + size] for i in range(0, len(samples), size)]
        made = join([judgements.of(w, part) for w, part in enumerate(waves)], n)
        if done < rounds.min_rounds:
            continue
        found = _look(made, labelled, params)
        if on_round:
            on_round(done, found)
        widest = float(found.half_widths.max())
        logger.info("probe: round %d, %d samples, widest interval +-%.3f", done, n, widest)
        narrow = narrow_enough(found, int(made.ok.sum()), rounds.half_width)
        if narrow:
            break
    stopped = "half_width" if narrow else "limit"
    ref = work.seal(asked=asked, n=n, rounds=done, stopped=stopped, half_width=widest)
    return store.seal(), ref


def load_probe(samples: FolderRef, judgements: FolderRef) -> tuple[list[Sample], Judgement]:
    """The samples and judgements that count, in order."""
    n = judgements.facts["n"]
    drawn = [
        Sample.model_validate_json(line)
        for file in sorted(samples.path.glob("wave_*.jsonl"))
        for line in file.read_text(encoding="utf-8").split("\n")
        if line
    ]
    return drawn[:n], load_judgements(judgements.path, n)


def load_judgements(folder: Path, n: int) -> Judgement:
    """The first ``n`` judgements that a :class:`JudgementStore` keeps in ``folder``, in order."""
    return join([_read(file) for file in _waves(folder)], n)


def _look(made: Judgement, labelled: Labelled, params: ProbeParams) -> Estimate:
    if not made.ok.any():
        counts = Counter(made.status)
        raise VersatuneError(
            f"none of {len(made.status)} samples could be judged ("
            + ", ".join(f"{number} {status}" for status, number in counts.items())
            + "): look at what the base model says in probe.folder, begin its sequences with "
            "another token (probe.sampling.start), or take another judge."
        )
    return estimate_shares(
        made.probabilities[made.ok],
        labelled,
        params.estimate.correction,
        params.estimate.bootstrap,
        params.seed,
    )


def skipped(folder: Path) -> FolderRef:
    """A reference for a stage that is not needed: what is there, or a folder that says so.

    Raises VersatuneError when the folder holds unfinished work, which is not thrown away.
    """
    if (folder / MANIFEST).is_file():
        return FolderRef.load(folder, verify=False)
    if (folder / INPUTS).is_file() and read_json(folder / INPUTS) != SKIPPED:
        raise VersatuneError(
            f"probe.known_distribution leaves out the probe, but {folder} holds one that is not "
            "finished: move the folder away to go without it, or set probe.known_distribution to "
            "null to finish it."
        )
    return WorkFolder.open(folder, SKIPPED).seal(**SKIPPED)


def facts_of(samples: list[Sample]) -> dict[str, Any]:
    """Counts of what is odd about the samples."""
    return {
        "empty": sum(s.flag == "empty" for s in samples),
        "repeated": len(samples) - len({s.text for s in samples}),
        "loop": sum(s.flag == "loop" for s in samples),
        "cut_at_limit": sum(not s.ended for s in samples),
        "mean_tokens": float(np.mean([s.n_tokens for s in samples])),
    }
