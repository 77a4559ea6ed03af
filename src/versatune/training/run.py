"""One process of a training: load, go on from the last checkpoint, train, save."""

import dataclasses
import logging
import pickle
import shutil
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, set_seed

from versatune.artifacts import write_json
from versatune.data.store import Split, TokenizedSplit
from versatune.errors import VersatuneError
from versatune.modeling.checkpoints import load_model, load_tokenizer, merged, saved_dtype
from versatune.training import checkpoints
from versatune.training.attention import choose_layout
from versatune.training.batches import Collator
from versatune.training.callback import RoundCallback, rewrite_events
from versatune.training.config import LoraParams, TrainParams
from versatune.training.job import CHECKPOINTS, EVENTS, HISTORY, Job, OnRound
from versatune.training.rounds import Known, Mixture
from versatune.training.trainer import MixtureTrainer, arguments

logger = logging.getLogger(__name__)


def run(job: Job, on_round: OnRound | None = None) -> None:
    """Train as ``job`` says; afterwards its folder holds history.json and the model.

    Called in every process of the training; the first one writes. Raises VersatuneError when
    the loss is not finite or explodes, naming the last good checkpoint, and before training
    when the disk is too small or a strategy lacks what it needs.
    """
    params, folder = job.params, job.folder / CHECKPOINTS
    args = arguments(params, folder)
    set_seed(params.seed)
    model = prepared_model(job)
    train, validation = _split(job, "train"), _split(job, "validation")
    longest = max(int(split.lengths.max(initial=0)) for split in (train, validation))
    layout = choose_layout(model, params.packing, longest)
    if layout == "padded":
        params = params.model_copy(update={"packing": False})
    known = Known(job.initial_weights, job.detected_shares, job.reference_losses, job.law)
    rows_per_step = (
        params.per_device_train_batch_size * params.gradient_accumulation_steps * args.world_size
    )
    mixture = Mixture(params, train, known, rows_per_step)
    trainer = MixtureTrainer(model, args, params, folder, train, Collator(layout), mixture.rows)
    callback = RoundCallback(
        trainer,
        mixture,
        validation,
        key=job.key,
        saves=job.keeps,
        patience=job.patience,
        on_round=on_round,
        others=TokenizedSplit.load(job.store, "validation") if job.all_at else None,
        others_at=job.all_at,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(callback)
    trainer.state_to_save = lambda: {
        **mixture.state(),
        **callback.within_round(),
        "world_size": args.world_size,
    }
    if job.keeps and trainer.args.should_save:
        checkpoints.discard_unsound(folder)
        needed = needed_bytes(model, params, sharded=trainer.is_fsdp_enabled)
        checkpoints.check_space(job.folder, needed - checkpoints.taken(job.folder))
    trainer.accelerator.wait_for_everyone()
    last = max(checkpoints.complete(folder), key=checkpoints.step_of, default=None)
    if last is not None:
        _go_on(last, mixture, callback, job, args.world_size)
    if trainer.is_world_process_zero():
        events = rewrite_events(job.folder / EVENTS, mixture.history)
        if on_round is not None:
            for event in events:
                on_round(event)
    goes_on = mixture.ended is None
    if goes_on:
        try:
            trainer.train(resume_from_checkpoint=str(last) if last else None)
        except pickle.UnpicklingError as error:
            raise VersatuneError(
                f"{last} holds code where numbers belong, which is never run: delete it and run "
                "again."
            ) from error
    chosen = None if goes_on else last
    if mixture.rolls_back:
        chosen = folder / f"checkpoint-{trainer.best_step}"
        if chosen not in checkpoints.complete(folder):
            raise VersatuneError(
                f"{mixture.ended}; but its checkpoint {chosen} is gone, so training has to begin "
                "anew: run with train.resume: restart."
            )
    _finish(job, trainer, mixture, chosen)


def prepared_model(job: Job) -> Any:
    """The base model as it is trained: in the training dtype, with adapters when asked for."""
    params = job.params
    model: Any = load_model(job.base, dtype=params.dtype)
    if params.attn_implementation:
        model.set_attn_implementation(params.attn_implementation)
    if params.lora:
        model = with_adapters(model, params.lora, job.key)
    model.train()
    return model


def with_adapters(model: Any, lora: LoraParams, key: str) -> Any:
    """``model`` with fresh low-rank adapters, all else frozen; ``key`` is where they are asked for.

    Raises VersatuneError when the model has no such layers.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise VersatuneError(f"{key}.lora.target_modules: {error}") from error


def needed_bytes(model: Any, params: TrainParams, *, sharded: bool) -> int:
    """Disk that checkpoints and the trained model take at most, in bytes, those there included."""
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    whole = sum(p.numel() * p.element_size() for p in model.parameters())
    # Weights (FSDP writes them twice, to load and to go on with) and AdamW's two moments; one
    # checkpoint more than the limit while it is written, and the best one; then the model,
    # staged and final.
    return (4 if sharded else 3) * trained * (params.save_total_limit + 2) + 2 * whole


def _split(job: Job, name: Split) -> TokenizedSplit:
    split = TokenizedSplit.load(job.store, name)
    if job.only is None:
        return split
    at = split.domains.index(job.only)
    stop = int(split.starts[at + 1])
    return dataclasses.replace(
        split,
        domains=(job.only,),
        starts=split.starts[at : at + 2],
        lengths=split.lengths[:stop],
        supervised=split.supervised[:stop],
        n_bytes=split.n_bytes[:stop],
    )


def _go_on(
    last: Path, mixture: Mixture, callback: RoundCallback, job: Job, world_size: int
) -> None:
    """Restore what the last checkpoint holds. Raises VersatuneError for other processes' one."""
    state = checkpoints.state_of(last)
    before = state.get("world_size", "an unknown number of")
    if before != world_size:
        raise VersatuneError(
            f"{last} was written by {before} processes, and now there are {world_size}, which "
            f"would take other rows a step: start as many as before (train.launcher and its "
            f"config_file), or delete {job.folder} to begin anew."
        )
    mixture.load(state)
    callback.load(state)
    logger.info("Training goes on from %s, in round %d.", last, mixture.round + 1)


def _finish(job: Job, trainer: MixtureTrainer, mixture: Mixture, chosen: Path | None) -> None:
    """Write the trained model and the history, and delete the checkpoints.

    ``chosen``: the checkpoint with the trained model; None when it is the one in memory.
    """
    folder = job.folder / CHECKPOINTS
    if job.keeps:
        if chosen is not None:
            logger.info("The trained model is that of %s.", chosen)
            trainer._load_from_checkpoint(str(chosen))
        staged = job.folder / "staged"
        trainer.save_model(str(staged))
        trainer.accelerator.wait_for_everyone()
    if trainer.args.should_save:
        if job.keeps:
            save_final(job, staged)
            shutil.rmtree(folder, ignore_errors=True)
        record = {
            "ended": mixture.ended,
            "rows": mixture.history,
            "others": mixture.rows_measured.others,
        }
        write_json(job.folder / HISTORY, record)
    trainer.accelerator.wait_for_everyone()


def save_final(job: Job, staged: Path) -> None:
    """From weights in training dtype, or an adapter, to the folder a user loads."""
    lora = job.params.lora
    if lora is None:
        load_model(staged, dtype=saved_dtype(job.base)).save_pretrained(job.folder)
    elif lora.merge:
        merged(load_model(job.base), staged).save_pretrained(job.folder)
        shutil.copytree(staged, job.folder / "adapter", dirs_exist_ok=True)
    else:
        # No config.json: with one beside the adapter, transformers looks for whole weights.
        for file in staged.glob("adapter_*"):
            shutil.copy(file, job.folder / file.name)
    load_tokenizer(job.base).save_pretrained(job.folder)
    shutil.rmtree(staged)
