"""transformers' Trainer with our batches, our loss and complete checkpoints."""

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from versatune.data.lengths import text_config
from versatune.data.store import TokenizedSplit
from versatune.errors import VersatuneError
from versatune.modeling.losses import TokenLoss
from versatune.modeling.ties import without_advice
from versatune.training import trainer_checkpoints as checkpoints
from versatune.training.batches import Collator, PackedRows, RoundSampler, Row
from versatune.training.budget import scheduler_kwargs
from versatune.training.config import TrainParams

logger = logging.getLogger(__name__)


def arguments(params: TrainParams, folder: Path) -> TrainingArguments:
    """``params`` as TrainingArguments; a process uses one device.

    A round is an epoch, or several where rounds differ in length: Trainer's are all alike.
    """
    args = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=params.steps.total // params.steps.epoch,
        per_device_train_batch_size=params.per_device_train_batch_size,
        gradient_accumulation_steps=params.gradient_accumulation_steps,
        learning_rate=params.learning_rate,
        lr_scheduler_type=params.lr_scheduler_type,
        lr_scheduler_kwargs=scheduler_kwargs(params),
        warmup_steps=params.warmup_ratio,
        optim=params.optim,
        weight_decay=params.weight_decay,
        adam_beta1=params.adam_beta1,
        adam_beta2=params.adam_beta2,
        max_grad_norm=params.max_grad_norm,
        bf16=params.autocast,
        activation_checkpointing=params.gradient_checkpointing,
        dataloader_num_workers=params.dataloader_num_workers,
        logging_steps=params.logging_steps,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to=[],
        remove_unused_columns=False,
        seed=params.seed,
        ddp_find_unused_parameters=False,
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        # Copies from pinned memory are queued while the step before runs: the host goes on.
        accelerator_config={"non_blocking": torch.cuda.is_available()},
    )
    if args.n_gpu > 1:
        logger.warning(
            "One of %d GPUs is used: train.launcher.processes trains on several (references are "
            "always measured on one).",
            args.n_gpu,
        )
        # Trainer would wrap the model in DataParallel, and batches would be of all devices' rows.
        args._n_gpu = 1
    return args


class MixtureTrainer(Trainer):
    """Sums the loss over supervised tokens and notes it per domain as it goes.

    The objective of a step is the sum of nats over all supervised tokens of the global batch,
    divided by their number: neither accumulation nor processes change it.
    """

    def __init__(
        self,
        model: Any,
        args: TrainingArguments,
        params: TrainParams,
        folder: Path,
        split: TokenizedSplit,
        collator: Collator,
        plan: Callable[[int], list[Row]],
        loss: TokenLoss | None = None,
    ) -> None:
        """Checkpoints go to ``folder``; ``plan`` gives the rows of an epoch, see RoundSampler.

        ``loss`` is of ``model``; None makes one, for which the model runs where it is.
        """
        self.params, self.folder = params, folder
        self._rows = PackedRows(split)
        self._plan = plan
        self.state_to_save: Callable[[], dict[str, Any]] = dict
        """What goes into a checkpoint besides the model; called in every process."""
        self.saving_seconds = 0.0
        """Time that checkpoints have taken."""
        self.best_step: int | None = None
        """The checkpoint that is kept whatever the limit."""
        loss = loss or TokenLoss(model)
        loss.model.forward = _Forward(loss)
        # Trainer writes it into the model's configuration, which is saved with the model.
        args.use_cache = getattr(text_config(loss.model.config), "use_cache", False)
        super().__init__(model=model, args=args, train_dataset=self._rows, data_collator=collator)
        # Trainer must not divide again: compute_loss returns the share of the whole batch.
        self.loss_is_scaled_for_ga = True
        self.sums = torch.zeros(
            (len(split.domains), 2), dtype=torch.float64, device=self.args.device
        )
        """Nats and supervised tokens by domain since the round began, of this process."""

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The epoch's batches, divided over the processes by accelerate."""
        n_batches = (
            self.params.steps.epoch * self.args.gradient_accumulation_steps * self.args.world_size
        )
        loader = DataLoader(
            self._rows,
            batch_sampler=RoundSampler(
                self._plan, self.args.per_device_train_batch_size, n_batches
            ),
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory and torch.cuda.is_available(),
        )
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int]:
        """The micro-batches of a step and the supervised tokens in it, over all processes."""
        batches = [next(epoch_iterator) for _ in range(num_batches)]
        count = sum(len(b["targets"]) for b in batches)
        if self.args.world_size == 1:
            return batches, max(count, 1)
        # Written by the device: a copy from the host would wait for it.
        counts = self.accelerator.gather(torch.full((), count, device=device))
        return batches, counts.sum().clamp(min=1)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,  # noqa: ARG002
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """This batch's part of the step's loss; by-product: the sums per domain."""
        domains = inputs.pop("domains")
        nats = model(**inputs)
        noted = nats.detach().double()
        self.sums.index_add_(0, domains, torch.stack([noted, torch.ones_like(noted)], dim=1))
        # Gradients of processes are averaged, the loss is a sum: undo the division.
        return nats.sum() * self.args.world_size / num_items_in_batch

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:  # noqa: ARG002
        """Not used: counting would visit all parameters at every step."""
        return 0

    def summed(self) -> Tensor:
        """:attr:`sums` over all processes."""
        total = self.sums.clone()
        if self.args.world_size > 1:
            torch.distributed.all_reduce(total)
        return total.cpu()

    def _save(self, *args: Any, **settings: Any) -> None:
        with without_advice():
            super()._save(*args, **settings)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint, then mark it, then delete the oldest.

        Weights that are not finite are never saved. Every process takes part.
        """
        folder = self.folder
        finite = torch.stack([_own(p).isfinite().all() for p in model.parameters()]).all()
        if not bool(self.accelerator.gather(finite.to(self.args.device)).all()):
            raise VersatuneError(not_finite(folder, "the weights hold NaN or infinite values"))
        started = time.monotonic()
        state = self.state_to_save()
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            checkpoints.mark(folder / f"checkpoint-{self.state.global_step}", state)
            checkpoints.rotate(folder, self.params.save_total_limit, self.best_step)
        self.accelerator.wait_for_everyone()
        self.saving_seconds += time.monotonic() - started


def _own(parameter: Tensor) -> Tensor:
    """The part of a parameter that this process holds: all of it unless FSDP divides it."""
    value = parameter.detach()
    return value.to_local() if isinstance(value, DTensor) else value


class _Forward:
    """Stands in for a model's ``forward``: returns the nats per target.

    The loss is made inside forward because that is what DDP and FSDP wrap.
    """

    def __init__(self, loss: TokenLoss) -> None:
        self._loss = loss

    def __call__(
        self, input_ids: Tensor, positions: Tensor, targets: Tensor, **inputs: Any
    ) -> Tensor:
        # peft hands on every argument of its own, most of them None.
        given = {name: value for name, value in inputs.items() if value is not None}
        if "longest" in given:
            # The number of examples is the one thing that batches of one shape differ in.
            torch._dynamo.maybe_mark_dynamic(given["starts"], 0)
        return self._loss(input_ids, positions, targets, **given)


def not_finite(folder: Path, what: str, key: str = "train") -> str:
    """The message of a stop: what happened, where the last good checkpoint lies, what to try.

    ``key`` is where the parameters are written; a reference starts over without being asked to.
    """
    whole = checkpoints.complete(folder)
    last = f"the last good checkpoint is {whole[-1]}" if whole else "there is no checkpoint yet"
    again = f" with {key}.resume: restart" if key == "train" else ""
    return (
        f"training in {folder.parent} stopped: {what}; {last}. Lower {key}.learning_rate, or look "
        f"at the rows of the last round, then run again{again}."
    )
