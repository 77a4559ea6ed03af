"""The last step of training: the saved model is measured, and must have the trained model's losses.

Merging adapters, tied weights, dtypes and file formats can each change the model, and nothing else
would notice. The folder is loaded as a user loads it and measured on the held-out rows that the
history was measured on.
"""

import gc
import logging
from pathlib import Path
from typing import Any

import torch

from versatune.artifacts import read_json
from versatune.errors import VersatuneError
from versatune.modeling.checkpoints import load_model, saved_dtype
from versatune.modeling.heldout import HeldOut, heldout_losses
from versatune.training.job import CHECKPOINTS, HISTORY, Job, job_split, losses_of
from versatune.training.precision import resolved
from versatune.work.calls import within_call

logger = logging.getLogger(__name__)

MEASURING = 4 * 2**30
"""Bytes of a GPU that measuring a model needs besides its weights, at most."""

LEAST = 1e-4
"""The difference, relative to 1 + loss, that two ways of adding up in float32 may make."""

QUANTIZED = 0.1
"""How far a loss may move with 4 bits: the model is trained with them and saved without them."""

REFUSED = 0.03
"""Beyond this many times its :func:`tolerance` rounding can't explain a difference."""


def check_saved(job: Job) -> None:
    """Compare the model saved in the job's folder with its history.

    The round is the one that the model is of: the last, or the best after a rollback; of a model
    between base and trained the losses are those it was chosen by. A difference beyond the rounding
    of the coarsest type in between (:func:`tolerance`) gives a warning: a near tie between experts
    can cause one. Raises VersatuneError when it is so large that the saved model is another one.
    """
    record = read_json(job.folder / HISTORY)
    wanted = losses_of(record["rows"], record["model_round"])
    whose = f"round {record['model_round']}"
    between = record.get("interpolation")
    if between is not None:
        whose = f"the model {between['part']:g} of the way from the base to the trained one"
        wanted = {
            row["domain"]: row["validation_loss"]
            for row in between["table"]
            if row["part"] == between["part"]
        }
    measured, dtype = measure_saved(job, job.folder)
    allowed = allowed_difference(job, dtype)
    found = {name: of.nats_per_token for name, of in measured.items()}
    apart = {name: abs(found[name] - loss) / (1 + loss) for name, loss in wanted.items()}
    # "not ... <=" and not ">": a loss that is no number differs, too.
    named = [
        f"{name} {found[name]:.4f} instead of {wanted[name]:.4f}"
        for name, difference in apart.items()
        if not difference <= allowed
    ]
    told = (
        f"the model saved in {job.folder} is not quite the trained one: its held-out loss is "
        f"{', '.join(named)} ({whose}, in {HISTORY})"
    )
    if not all(difference <= max(REFUSED, 2 * allowed) for difference in apart.values()):
        raise VersatuneError(
            f"{told.replace('not quite', 'not')}. Don't use it. The trained weights are in "
            f"{job.folder / CHECKPOINTS}; please report this with {job.key}.lora, {job.key}.dtype "
            "and the model's config.json."
        )
    if named:
        logger.warning("%s: more than rounding explains.", told)
    elif not within_call():
        logger.info("The saved model has the held-out losses of %s.", whose)


def measure_saved(job: Job, folder: Path) -> tuple[dict[str, HeldOut], torch.dtype]:
    """Losses of the model in ``folder`` on the job's steering rows, and the model's dtype.

    Loaded as a user loads it, and measured as training measures.
    """
    params = resolved(job.params)
    model: Any = load_model(folder)
    model = model.to("cuda" if _has_room(model) else "cpu")
    with torch.autocast(model.device.type, torch.bfloat16, enabled=params.autocast):
        measured = heldout_losses(
            model,
            job_split(job, "steering"),
            rows_per_domain=params.heldout_rows_per_domain,
            tokens_per_domain=params.heldout_tokens_per_domain,
            batch_tokens=params.heldout_batch_tokens,
        )
    return measured, model.dtype


def allowed_difference(job: Job, *dtypes: torch.dtype | str) -> float:
    """How far a loss may be from training's, relative to 1 + loss, for what lies between."""
    params = resolved(job.params)
    types = (*(dtypes or (saved_dtype(job.base),)), params.dtype)
    allowed = tolerance(*types, "bfloat16" if params.autocast else "float32")
    return allowed if params.quantization is None else max(allowed, QUANTIZED)


def tolerance(*dtypes: torch.dtype | str) -> float:
    """How far losses may differ relative to 1 + loss, for weights and sums of these types.

    Four times the distance between neighbouring numbers of the coarsest one: 3 % for bfloat16,
    0.4 % for float16, and :data:`LEAST` for float32, whose sums depend on their order.
    """
    types = [getattr(torch, d) if isinstance(d, str) else d for d in dtypes]
    return max(LEAST, *(4 * torch.finfo(dtype).eps for dtype in types))


def _has_room(model: Any) -> bool:
    """Whether a GPU holds the model and what measuring takes; others may be using it."""
    if not torch.cuda.is_available():
        return False
    gc.collect()  # the trained model, which nothing names any more
    torch.cuda.empty_cache()
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    return bool(torch.cuda.mem_get_info()[0] > size + min(size // 2, MEASURING))
