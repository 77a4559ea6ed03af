"""The base model: pretrained on the sample, or the user's own."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import model_validator

from versatune.artifacts import file_digest
from versatune.demo.pretrain_config import PretrainParams
from versatune.modeling.checkpoints import CheckpointRef
from versatune.modeling.locate import find_checkpoint
from versatune.params import Params
from versatune.work import Piece


class BaseModelParams(Params):
    """Which model is fine-tuned."""

    kind: Literal["pretrain", "pretrained"] = "pretrain"
    """`pretrain` trains a small one on the sample, `pretrained` takes `name_or_path`."""
    name_or_path: str | None = None
    """For `pretrained`: a model folder on this disk, or the id of a model on the hub."""
    revision: str | None = None
    """For a hub model: branch, tag or commit; the main branch when not given."""
    pretrain: PretrainParams = PretrainParams()
    """For `pretrain`: size and training of the model."""

    @model_validator(mode="after")
    def _name_goes_with_kind(self) -> Self:
        if self.kind == "pretrained" and not self.name_or_path:
            raise ValueError("kind 'pretrained' needs name_or_path: a model folder or a hub id")
        for key in ("name_or_path", "revision"):
            if self.kind == "pretrain" and getattr(self, key):
                raise ValueError(
                    f"{key} {getattr(self, key)!r} is given, but kind is 'pretrain': "
                    f"set kind to 'pretrained' or {key} to null"
                )
        return self


def make_base(params: BaseModelParams, corpus: Path) -> Piece | CheckpointRef:
    """The base model that ``params`` ask for: one to be pretrained on ``corpus``, or one found.

    Raises VersatuneError when the model can't be found, or can't be loaded safely.
    """
    if params.kind == "pretrain":
        inputs = {
            **params.pretrain.model_dump(mode="json", exclude={"save_steps"}),
            "corpus": file_digest(corpus),
        }

        def make(folder: Path) -> dict[str, Any]:
            from versatune.demo.pretrain import pretrain

            return pretrain(params.pretrain, corpus, folder)

        return Piece(inputs, make)
    assert params.name_or_path is not None  # the validator of the parameters saw to it
    return find_checkpoint(params.name_or_path, params.revision)


def pretrained_here(folder: Path) -> CheckpointRef:
    """The reference of a model that was pretrained in ``folder``."""
    return CheckpointRef.from_manifest(folder, "pretrained on the sample")
