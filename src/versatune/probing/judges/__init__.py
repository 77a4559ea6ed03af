"""Judges: they decide which domain a text belongs to, behind one interface.

A judge is a module of this package, named as the field of ``JudgeParams`` that holds its parameters
(:mod:`versatune.probing.config`): that field is its registration. The module has

- ``train(clean, params, about)``: the :class:`~versatune.work.Piece` that makes it ready and
  measures it on labelled rows; metadata: ``kind``, ``name``, ``domains``, ``accuracy``;
- ``open_judge(ref, params, about)``: the :class:`~versatune.probing.judges.base.Judge` of the
  finished folder.
"""

import importlib
from typing import TYPE_CHECKING, Any

from versatune.artifacts import FolderRef
from versatune.errors import VersatuneError
from versatune.probing.judges.base import About, Judge
from versatune.work import Piece

if TYPE_CHECKING:
    from versatune.probing.config import JudgeParams


def train_judge(clean: FolderRef, params: "JudgeParams", about: About) -> Piece:
    """The judge made ready, with its answers on labelled rows.

    Raises VersatuneError when there is no model folder or no server.
    """
    if missing := params.own.missing():
        key = ".".join((about.key, params.kind, *missing[0]))
        raise VersatuneError(f"{key} {missing[1]}.")
    made: Piece = _module(params.kind).train(clean, params.own, about)
    return made


def open_judge(ref: FolderRef, params: "JudgeParams", about: About) -> Judge:
    """The judge of a finished folder."""
    kind = ref.metadata["kind"]
    judge: Judge = _module(kind).open_judge(ref, getattr(params, kind), about)
    return judge


def _module(kind: str) -> Any:
    """Imported when it is asked for: judges bring scikit-learn, openai or transformers."""
    return importlib.import_module(f"{__name__}.{kind}")
