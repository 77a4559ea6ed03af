"""The cost of a training before it starts: passes over each domain, tokens, time and memory."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from versatune.artifacts import FolderRef
from versatune.data.store import TokenizedSplit
from versatune.mixing.domain_sums import domain_squares
from versatune.mixing.planner import Planner
from versatune.mixing.shares import Array
from versatune.modeling.checkpoints import CheckpointRef
from versatune.modeling.heldout import chosen_rows
from versatune.modeling.influence import first_line
from versatune.modeling.room import device_bytes
from versatune.training.api import history
from versatune.training.config import TrainParams
from versatune.training.memory import meta_model, plan_memory, read_accelerate
from versatune.training.precision import resolved
from versatune.training.throughput import Work, cost_of

logger = logging.getLogger(__name__)

MANY_PASSES = 4.0
"""After this many passes, repeated rows teach less and less (arXiv 2305.16264: up to four passes
are nearly as good as new rows)."""

FORWARD = 3.0
"""The time of a training step relative to its forward pass."""

PLANNED_ROWS = 256
"""Packed rows that are planned to measure how full they are."""


@dataclass(frozen=True)
class Speed:
    """How fast the model trains in one process."""

    tokens_per_second: float
    source: str
    """What the speed was measured on, for messages."""


class Budget:
    """The cost of training as a function of the shares."""

    def __init__(self, params: TrainParams, train: TokenizedSplit, start: Array) -> None:
        """``start``: the shares (k,) to plan the first packed rows with.

        Raises VersatuneError when these can't be planned, as training would.
        """
        self._params, self._split = params, train
        self.rows = params.steps.total * rows_per_step(params)
        """Packed rows (examples, without packing) of the whole training."""
        planner = Planner(
            train.domains, train.starts, train.lengths, train.supervised, params,
            unit=params.unit, seed=params.seed,
        )  # fmt: skip
        planned = min(self.rows, PLANNED_ROWS)
        plan = planner.plan_round(start, planner.initial_state(), planned)
        self._tokens_a_row = plan.n_tokens / planned
        self._units, self._lengths = train.amounts(params.unit), train.amounts("tokens")
        self._examples = train.amounts("rows")

    def passes(self, weights: Array) -> Array:
        """How many times each domain's rows are seen, shape (k,); inf without any rows."""
        with np.errstate(divide="ignore", invalid="ignore"):
            each = weights / self._units
            each = np.where(weights > 0, each, 0.0)
            drawn = np.where(np.isfinite(each), each, 0.0)
            if self._params.packing:
                total = self.rows * self._tokens_a_row / float(drawn @ self._lengths)
            else:
                total = self.rows / float(drawn @ self._examples)
            result: Array = each * total
        return result

    def spent(self, passes: Array) -> Work:
        """What is trained on in this many passes over each domain's rows, (k,)."""
        split = self._split
        supervised = split.amounts("supervised_tokens")
        squares = domain_squares(split.lengths, split.starts)
        some = np.where(np.isfinite(passes), passes, 0.0)
        return Work(*(float(some @ values) for values in (self._lengths, supervised, squares)))


def rows_per_step(params: TrainParams) -> int:
    """Packed rows of an optimiser step, over accumulation and processes."""
    rows = params.per_device_train_batch_size * params.gradient_accumulation_steps
    return rows * processes(params)


def processes(params: TrainParams) -> int:
    """How many processes train. Raises VersatuneError when the launcher's file can't be read."""
    file = params.launcher.config_file
    if file is None:
        return params.launcher.processes
    return int(read_accelerate(file).get("num_processes", 1))


def speed_of(runs: Mapping[str, FolderRef], source: str) -> Speed | None:
    """How fast these runs trained, measuring left out; None without any. ``source``: their name."""
    tokens = seconds = 0.0
    for run in runs.values():
        rounds = history(run.path)
        rounds = rounds[rounds["round"] > 0].drop_duplicates("round")
        tokens += float((rounds["tokens_per_second"] * rounds["seconds"]).sum())
        seconds += float((rounds["seconds"] - rounds["measurement_seconds"]).sum())
    return Speed(tokens / seconds, source) if seconds > 0 else None


def seconds_of(runs: Mapping[str, FolderRef]) -> float:
    """Seconds that the reference runs took, measuring included."""
    each = [history(run.path).drop_duplicates("round")["seconds"].sum() for run in runs.values()]
    return float(sum(each))


def seconds_to_train(
    params: TrainParams, steering: TokenizedSplit, tokens: float, speed: Speed
) -> float:
    """Seconds of training on this many tokens, held-out measurements included."""
    chosen = chosen_rows(steering, params.heldout_rows_per_domain, params.heldout_tokens_per_domain)
    rows = np.concatenate(chosen)
    measured = float(steering.lengths[rows].sum()) * (params.rounds + 1) / FORWARD
    return (tokens + measured) / speed.tokens_per_second / processes(params)


def needs(base: CheckpointRef, params: TrainParams, spent: Work) -> dict[str, Any]:
    """``flops`` of the whole training, and bytes: ``memory`` by what it is for on each device,
    ``device_bytes`` that one has, ``disk``.

    None for each where it can't be estimated (an unusual architecture).
    """
    from transformers import AutoConfig

    nothing = {"flops": None, "memory": None, "disk": None, "device_bytes": device_bytes()}
    try:
        config = AutoConfig.from_pretrained(
            base.path, trust_remote_code=False, local_files_only=True
        )
        plan = plan_memory(config, params)
        cost = cost_of(meta_model(config, resolved(params)))
    except Exception as error:  # models on the meta device raise whatever their code happens to
        logger.debug("What training needs can't be estimated: %s", first_line(error))
        return nothing
    memory = {name: getattr(plan, name) for name in MEMORY}
    return nothing | {"flops": cost.flops(spent), "memory": memory, "disk": plan.disk}


MEMORY = ("weights", "gradients", "optimizer", "activations", "logits")
"""The parts of a :class:`~versatune.training.memory.MemoryPlan` that lie on a device."""


def upper_bound(params: TrainParams) -> Work:
    """Upper bound of what training spends: each row full, every token supervised.

    For estimates before any row is tokenised.
    """
    tokens = float(params.steps.total * rows_per_step(params) * params.max_length)
    return Work(tokens, tokens, tokens * params.max_length)
