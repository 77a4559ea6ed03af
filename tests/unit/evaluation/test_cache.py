"""What was measured is kept, by checkpoint, task and the versions of the libraries."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from versatune.artifacts import FolderRef
from versatune.evaluation import run
from versatune.evaluation.config import EvaluateParams
from versatune.evaluation.results import LIBRARIES, library_versions
from versatune.modeling.checkpoints import CheckpointRef


def test_a_number_is_kept_until_a_library_changes(
    tiny_checkpoint: CheckpointRef,
    tiny_store: FolderRef,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, loads = run.load_model, []

    def counted(*args: Any, **kwargs: Any) -> Any:
        loads.append(args)
        return real(*args, **kwargs)

    def rows() -> pd.DataFrame:
        params = EvaluateParams(folder=tmp_path, rows_per_domain=2)
        return run.evaluate_checkpoint(
            tiny_checkpoint, model="base", store=tiny_store, tasks=[], params=params
        ).rows

    monkeypatch.setattr(run, "load_model", counted)
    first = rows()
    assert all(f"{name} {library_versions()[name]}" in first["versions"][0] for name in LIBRARIES)
    assert first.drop(columns="stderr").notna().all(axis=None)
    pd.testing.assert_frame_equal(rows(), first)
    assert len(loads) == 1
    newer = library_versions() | {"transformers": "99.0"}
    monkeypatch.setattr(run, "library_versions", lambda: newer)
    rows()
    assert len(loads) == 2
