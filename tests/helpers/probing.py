"""The stages of the probe as its nodes run them, in a folder of the test's own."""

from pathlib import Path
from typing import Any

from versatune.artifacts import FolderRef
from versatune.modeling.checkpoints import CheckpointRef
from versatune.probing import audit, judges
from versatune.probing.config import ProbeParams
from versatune.probing.judges.base import About
from versatune.probing.probe import draw_samples, judge_in_rounds
from versatune.samplers.base import Sample, Sampler, draw, read_samples
from versatune.samplers.make import make_sampler
from versatune.work import make_folder


def first_samples(folder: Path, sampler: Sampler, seed: int, size: int, n: int) -> list[Sample]:
    """The first ``n`` samples, those drawn before from ``folder``."""
    make_folder(draw(sampler, seed, size, n), folder)
    return read_samples(folder)[:n]


def probe(
    base: CheckpointRef, judge: FolderRef, folder: Path, params: ProbeParams, on_round: Any = None
) -> tuple[FolderRef, FolderRef]:
    """Samples and judgements below ``folder``."""
    sampler = make_sampler(base, params.sampling)
    samples = make_folder(draw_samples(sampler, params), folder / "samples")

    def open_judge() -> Any:
        return judges.open_judge(judge, params.judge, About(keep=folder / "answers"))

    piece = judge_in_rounds(sampler, samples, judge, params, open_judge, on_round)
    judged = make_folder(piece, folder / "judgements")
    return FolderRef.load(samples.path), judged


def run_audit(
    clean: FolderRef,
    samples: FolderRef,
    judgements: FolderRef,
    folder: Path,
    params: ProbeParams,
    descriptions: dict[str, str],
) -> FolderRef:
    """The audit below ``folder``, its judge made ready before."""
    about = About(descriptions, params.seed, folder / "answers", key=audit.KEY)
    auditor = make_folder(judges.train_judge(clean, params.audit.judge, about), folder / "auditor")
    piece = audit.run_audit(auditor, samples, judgements, params, about)
    return make_folder(piece, folder / "audit")
