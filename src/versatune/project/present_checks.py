"""Checks that named files, optional packages and enough memory are there."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from versatune.comparing.config import CompareParams
from versatune.demo.base_model import BaseModelParams
from versatune.evaluation.config import EvaluateParams
from versatune.modeling.engines import without_vllm
from versatune.modeling.quantized import without_bitsandbytes
from versatune.probing.config import ProbeParams
from versatune.project.blocks import Key, Problem
from versatune.training.config import TrainParams
from versatune.training.reference_config import ReferenceParams
from versatune.work import ParallelParams

LARGE = 10**9
"""Bytes of weights from which on counting their memory is worth the seconds that it takes."""


def check_packages(
    train: TrainParams, references: ReferenceParams, compare: CompareParams
) -> Iterator[Problem]:
    """Optional packages that the parameters need are installed."""
    asked: list[tuple[Key, Any]] = []
    for name in ("optim", "quantization"):
        asked.append((("train", name), getattr(train, name)))
        if references.mode != "none":
            asked.append((("references", "train", name), references.train.get(name)))
        asked.append((("compare", "train", name), compare.train.get(name)))
    for key, value in asked:
        if problem := without_bitsandbytes(value):
            yield Problem(key, problem)


def check_engine(parallel: ParallelParams) -> Iterator[Problem]:
    """The engine that distributes work is installed."""
    if parallel.engine == "ray" and importlib.util.find_spec("ray") is None:
        yield Problem(("parallel", "engine"), "Ray is not installed: pip install 'versatune[ray]'")


def check_vllm(
    probe: ProbeParams, evaluate: EvaluateParams, train: TrainParams
) -> Iterator[Problem]:
    """vLLM is installed if it is chosen, and gets whole models."""
    sampling = probe.sampling
    if sampling.source == "model" and (problem := without_vllm(sampling.engine)):
        yield Problem(("probe", "sampling", "engine"), problem)
    if problem := without_vllm(evaluate.engine, evaluate.vllm):
        yield Problem(("evaluate", "engine"), problem)
    elif evaluate.engine == "vllm" and train.lora and not train.lora.merge:
        yield Problem(
            ("evaluate", "engine"),
            "vllm reads whole models, and train.lora.merge is false: set it to true, or take auto",
        )


def check_training_files(train: TrainParams) -> Iterator[Problem]:
    """The launcher's configuration exists."""
    yield from _missing(train.launcher.config_file, ("train", "launcher", "config_file"))


def check_reference_files(references: ReferenceParams) -> Iterator[Problem]:
    """The proxy model exists."""
    if references.mode != "none":
        yield from _missing(references.proxy, ("references", "proxy"))


def check_extra_models(evaluate: EvaluateParams) -> Iterator[Problem]:
    """The models to compare with exist. Checked when models are evaluated."""
    for name, path in evaluate.extra_models.items():
        yield from _missing(path, ("evaluate", "extra_models", name))


def check_bases(compare: CompareParams) -> Iterator[Problem]:
    """Other projects whose comparisons are shown exist. Checked when one is made."""
    for name, path in compare.bases.items():
        yield from _missing(path, ("compare", "bases", name))


def check_evaluation_files(evaluate: EvaluateParams) -> Iterator[Problem]:
    """The harness's own task files exist."""
    yield from _missing(evaluate.harness.include_path, ("evaluate", "harness", "include_path"))


def check_memory(
    base_model: BaseModelParams, train: TrainParams, parallel: ParallelParams
) -> Iterator[Problem]:
    """A model on this disk fits, trained by processes of this machine.

    Asked before the first node, and not after the probe; models on the hub, and training on other
    machines, are checked when training begins.
    """
    here = parallel.engine == "local" and train.launcher.config_file is None
    folder = Path(base_model.name_or_path or "").expanduser()
    if not here or base_model.kind != "pretrained" or not (folder / "config.json").is_file():
        return
    if sum(file.stat().st_size for file in folder.glob("*.safetensors")) < LARGE:
        return
    from versatune.training.run import too_large

    if problem := too_large(folder, train, "train"):
        yield Problem(("train",), problem.removesuffix("."))


def _missing(path: Any, key: Key) -> Iterator[Problem]:
    if path is not None and not path.expanduser().exists():
        yield Problem(key, f"there is no {path}")
