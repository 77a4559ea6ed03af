"""The learning rate over the rounds: its sum in each round, and its value at each round's end."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import get_scheduler

from versatune.mixing.shares import Array
from versatune.training.config import TrainParams


def learning_by_round(params: TrainParams) -> Array:
    """Learning rate over its peak, summed over the steps of each round, shape (rounds,)."""
    return np.array([rates.sum() for rates in _rates(params)])


def rate_by_round(params: TrainParams) -> Array:
    """Learning rate over its peak in the last step of each round, shape (rounds,)."""
    return np.array([rates[-1] for rates in _rates(params)])


def so_far(params: TrainParams) -> tuple[Array, Array]:
    """The learning amount up to each round's end and the rate there, shape (rounds + 1,) each: 0
    at the base model."""
    learning = np.concatenate([[0.0], np.cumsum(learning_by_round(params))])
    return learning, np.concatenate([[0.0], rate_by_round(params)])


def _rates(params: TrainParams) -> Sequence[Array]:
    """Of each step, an array a round.

    By transformers' own schedule, warm-up included, so that it is what training does.
    """
    steps = params.steps.total
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = get_scheduler(
        params.lr_scheduler_type,
        optimizer,
        num_warmup_steps=warmup_steps(params, steps),
        num_training_steps=steps,
        scheduler_specific_kwargs=scheduler_kwargs(params),
    )
    rates = [schedule.get_last_lr()[0]]
    for _ in range(steps - 1):
        optimizer.step()
        schedule.step()
        rates.append(schedule.get_last_lr()[0])
    return np.split(np.array(rates), params.steps.ends[:-1])


def scheduler_kwargs(params: TrainParams) -> dict[str, Any]:
    """What transformers' schedule needs besides its name and its steps."""
    if params.lr_scheduler_type != "warmup_stable_decay":
        return {}
    steps = params.steps.total
    decay = min(int(np.ceil(steps * params.decay_ratio)), steps - warmup_steps(params, steps))
    return {"num_decay_steps": decay, "decay_type": "linear"}


def warmup_steps(params: TrainParams, steps: int) -> int:
    """As TrainingArguments.get_warmup_steps rounds a part of the steps."""
    return int(np.ceil(steps * params.warmup_ratio))
