"""One process of a training: load, resume from the last checkpoint, train, save."""

import logging
import pickle
import shutil
from pathlib import Path
from typing import Any

from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, PrinterCallback, set_seed

from versatune.artifacts import write_json
from versatune.data.answers import stop_tokens
from versatune.data.lengths import text_config, token_limit
from versatune.data.store import TokenizedSplit
from versatune.errors import VersatuneError
from versatune.modeling.checkpoints import (
    GENERATION_CONFIG,
    CheckpointRef,
    generation_config,
    load_model,
    load_tokenizer,
    merged,
    saved_dtype,
)
from versatune.modeling.influence import first_line
from versatune.modeling.losses import TokenLoss
from versatune.modeling.quantized import without_bitsandbytes
from versatune.modeling.room import device_bytes
from versatune.training import trainer_checkpoints as checkpoints
from versatune.training.adapters import with_adapters
from versatune.training.attention import FLEX, choose_layout
from versatune.training.batches import Collator
from versatune.training.callback import RoundCallback
from versatune.training.compiled import compile_blocks
from versatune.training.config import TrainParams
from versatune.training.events import rewrite_events
from versatune.training.job import (
    CHECKPOINTS,
    EVENTS,
    HISTORY,
    Job,
    OnRound,
    OnStep,
    job_split,
)
from versatune.training.machine import machine
from versatune.training.memory import DoesNotFitError, check_fits, disk_bytes
from versatune.training.precision import load_base, resolved, warn_if_slow
from versatune.training.rounds import Mixture
from versatune.training.throughput import cost_of, peak_flops
from versatune.training.trainer import MixtureTrainer, arguments
from versatune.training.trial import on_device

logger = logging.getLogger(__name__)


def run(job: Job, on_round: OnRound | None = None, on_step: OnStep | None = None) -> None:
    """Train as ``job`` says; afterwards its folder holds history.json and the model.

    Called in every process of the training; the first one writes. Raises VersatuneError when
    the loss is not finite or explodes, naming the last good checkpoint, and before training
    when memory or the disk is too small or a strategy lacks what it needs.
    """
    job = job.model_copy(update={"params": resolved(job.params)})
    params, folder = job.params, job.folder / CHECKPOINTS
    warn_if_slow(params, job.key)
    args = arguments(params, folder)
    if problem := too_large(job.base.path, params, job.key):
        raise DoesNotFitError(problem)
    set_seed(params.seed)
    model = prepared_model(job)
    # Text reaches no parameter of a composite model's other parts.
    args.ddp_find_unused_parameters = text_config(model.config) is not model.config
    train, steering = job_split(job, "train"), job_split(job, "steering")
    longest = max(int(split.lengths.max(initial=0)) for split in (train, steering))
    limit = token_limit(model.config)
    if limit is not None and longest > limit:
        raise VersatuneError(
            f"the store holds an example of {longest} tokens, and {job.base.name} takes {limit} at "
            f"most: set tokenize.max_length to {limit} or less, and run the pipeline from `ingest`."
        )
    with on_device(model, args.device):
        layout = choose_layout(model, params.packing, longest, bf16=params.autocast)
        # Tried here too: attention that was chosen for a GPU may not run on a CPU.
        loss = TokenLoss(model)
    if layout == "padded":
        params = params.model_copy(update={"packing": False})
    compiled = params.torch_compile or model.config._attn_implementation == FLEX
    shape = (params.per_device_train_batch_size, params.max_length) if compiled else None
    collator = Collator(layout, shape, limit)
    if params.torch_compile:
        compile_blocks(model)
    cost = cost_of(model) if peak_flops() else None
    rows_per_step = (
        params.per_device_train_batch_size * params.gradient_accumulation_steps * args.world_size
    )
    mixture = Mixture(params, train, job, rows_per_step)
    trainer = MixtureTrainer(model, args, params, folder, train, collator, mixture.rows, loss)
    callback = RoundCallback(
        trainer,
        mixture,
        steering,
        key=job.key,
        saves=job.save_model,
        patience=job.patience,
        on_round=on_round,
        others=TokenizedSplit.load(job.store, "steering") if job.all_at else None,
        others_at=job.all_at,
        cost=cost,
        on_step=on_step,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(callback)
    trainer.state_to_save = lambda: {
        **mixture.state(),
        **callback.within_round(),
        "world_size": args.world_size,
        "precision": [params.bf16, params.dtype],
    }
    if job.save_model and trainer.args.should_save:
        checkpoints.discard_unsound(folder)
        sizes = [(p.requires_grad, p.numel() * p.element_size()) for p in model.parameters()]
        own, whole = sum(n for changes, n in sizes if changes), sum(n for _, n in sizes)
        needed = disk_bytes(own, whole, params, sharded=trainer.is_fsdp_enabled)
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
                "over: run with train.resume: restart."
            )
    _finish(job, trainer, mixture, chosen)


def too_large(folder: Path, params: TrainParams, key: str) -> str | None:
    """The error for a training that needs more memory than the device has; else None.

    ``folder``: the base model's, of which only the configuration is read. None too where that
    can't be estimated (an unusual architecture, an adapter without its base).
    """
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        plan = check_fits(config, params, device_bytes(), key)
    except DoesNotFitError as error:
        return str(error)
    except Exception as error:  # models on the meta device raise whatever their code happens to
        logger.debug("The memory of training can't be estimated: %s", first_line(error))
    else:
        logger.debug("Training needs about %s on each device.", plan)
    return None


def prepared_model(job: Job) -> Any:
    """The base model as it is trained: in the training dtype, with adapters when asked for.

    Raises VersatuneError when it could not be loaded again once it is saved.
    """
    params = job.params
    for name in ("optim", "quantization"):
        if problem := without_bitsandbytes(getattr(params, name)):
            raise VersatuneError(f"{job.key}.{name}: {problem}.")
    model = load_base(job.base, params)
    if type(model.config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise VersatuneError(
            f"{job.base.name}: its text model ({type(model).__name__}) is a part that transformers "
            f"can't load by itself once it is saved ({type(model.config).__name__} is no causal "
            "language model to AutoModelForCausalLM): choose another model."
        )
    if params.attn_implementation:
        model.set_attn_implementation(params.attn_implementation)
    if params.lora:
        model = with_adapters(model, params.lora, job.key)
    model.train()
    return model


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
            f"config_file), or delete {job.folder} to start over."
        )
    precision = [job.params.bf16, job.params.dtype]
    if state.get("precision", precision) != precision:
        raise VersatuneError(
            f"{last} was trained with bf16: {state['precision'][0]}, dtype: "
            f"{state['precision'][1]}, and `auto` chooses bf16: {precision[0]}, dtype: "
            f"{precision[1]} on this device: continue on a device like the first, or delete "
            f"{job.folder} to start over."
        )
    mixture.load(state)
    callback.load(state)
    logger.info("Training continues from %s, in round %d.", last, mixture.round + 1)


def _finish(job: Job, trainer: MixtureTrainer, mixture: Mixture, chosen: Path | None) -> None:
    """Write the trained model and the history.

    ``chosen``: the checkpoint with the trained model; None when it is the one in memory.
    """
    if job.save_model:
        if chosen is not None:
            logger.info("The trained model is that of %s.", chosen)
            trainer._load_from_checkpoint(str(chosen))
        staged = job.folder / "staged"
        trainer.save_model(str(staged))
        trainer.accelerator.wait_for_everyone()
    if trainer.args.should_save:
        if job.save_model:
            save_final(job, staged)
        record = {
            "ended": mixture.ended,
            **machine(),
            "model_round": mixture.best_round if mixture.rolls_back else mixture.round,
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
        save_ends(job.folder / "adapter", job.base)
    else:
        # No config.json: with one beside the adapter, transformers looks for whole weights.
        for file in staged.glob("adapter_*"):
            shutil.copy(file, job.folder / file.name)
    load_tokenizer(job.base).save_pretrained(job.folder)
    save_ends(job.folder, job.base)
    shutil.rmtree(staged)


def save_ends(folder: Path, base: CheckpointRef) -> None:
    """Set where answers end in a trained model's generation config.

    ``base`` may not know; what ends its generations ends them still. The tokenizer's
    ``eos_token`` stays as it is: it ends documents, and templates may write it elsewhere.
    """
    config = generation_config(base)
    before = config.eos_token_id
    stops = stop_tokens(load_tokenizer(base), before)
    if stops not in ([before], before):
        config.eos_token_id = stops or None
    # Not save_pretrained: it refuses a changed config that it would only warn about unchanged.
    config.to_json_file(folder / GENERATION_CONFIG)
