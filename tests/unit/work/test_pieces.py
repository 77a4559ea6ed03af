"""A piece of work: made once, gone on with after kills, and never taken for another's."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kedro.io import DataCatalog, DatasetError
from kedro.pipeline import Pipeline, node
from kedro.runner import SequentialRunner

from versatune.artifacts import MANIFEST, FolderRef, exclusive, file_digest, write_atomic
from versatune.errors import VersatuneError
from versatune.io import (
    CheckpointDataset,
    FolderDataset,
    FoldersDataset,
    PlaceDataset,
    StoreDataset,
    TrainedModelDataset,
)
from versatune.work import Piece, WorkFolder, folder, make_folder, not_needed

PARTS = 4


def parts(path: Path) -> dict[str, Any]:
    """Numbered files, going on from those that are there."""
    made = [n for n in range(PARTS) if not (path / f"part_{n}").exists()]
    for n in made:
        write_atomic(path / f"part_{n}", f"content {n}")
    return {"parts": PARTS}


def piece(seed: int = 0, **more: Any) -> Piece:
    return Piece({"seed": seed}, **{"make": parts, **more})


def refuse(_: Path) -> dict[str, Any]:
    raise AssertionError("finished work was done again")


def content(path: Path) -> dict[str, str]:
    return {f.name: file_digest(f) for f in path.iterdir()}


def test_it_is_made_once(tmp_path: Path) -> None:
    ref = make_folder(piece(), tmp_path / "w")
    assert ref == FolderRef.load(tmp_path / "w")
    assert (ref.fingerprint, ref.metadata) == (piece().fingerprint, {"parts": PARTS})
    assert make_folder(piece(make=refuse), tmp_path / "w") == ref
    other = make_folder(piece(1), tmp_path / "w")
    assert other.fingerprint == piece(1).fingerprint != ref.fingerprint


def killed_at(owner: Any, name: str, count: int, work: Callable[[], Any]) -> None:
    """Do ``work`` in a fork that is killed when ``owner.name`` is called the so-manieth time."""
    pid = os.fork()
    if pid == 0:
        real, calls = getattr(owner, name), [0]

        def dying(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            if calls[0] == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        setattr(owner, name, dying)
        with contextlib.suppress(BaseException):
            work()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("old", [None, "finished", "unfinished"])
@pytest.mark.parametrize(
    ("owner", "name", "count"),
    [
        (os, "fsync", 1),  # within the first file, inputs.json
        (os, "fsync", 2),
        (os, "fsync", 5),  # within the last part
        (os, "fsync", 6),  # within the manifest
        (WorkFolder, "seal", 1),
        (folder, "write_json", 2),
    ],
)
def test_killed_and_made_again_it_is_the_same(
    tmp_path: Path, owner: Any, name: str, count: int, old: str | None
) -> None:
    path = tmp_path / "w"
    if old:
        make_folder(piece(7), path)
    if old == "unfinished":
        (path / MANIFEST).unlink()
    killed_at(owner, name, count, lambda: make_folder(piece(), path))
    with pytest.raises(VersatuneError):
        assert FolderRef.load(path).fingerprint != piece().fingerprint
        raise VersatuneError("the old one is still whole")
    make_folder(piece(), path)
    make_folder(piece(), tmp_path / "undisturbed")
    assert content(path) == content(tmp_path / "undisturbed")
    assert make_folder(piece(make=refuse), path).metadata == {"parts": PARTS}


@pytest.mark.parametrize("name", ["rename", "replace"])
def test_killed_while_a_finished_folder_is_set_aside_nothing_is_lost(
    tmp_path: Path, name: str
) -> None:
    path, kept = tmp_path / "w", piece(1, on_change="keep")
    first = make_folder(piece(), path)
    killed_at(Path, name, 1, lambda: make_folder(kept, path))
    make_folder(kept, path)
    assert FolderRef.load(path).fingerprint == kept.fingerprint
    assert FolderRef.load(tmp_path / "w.previous").fingerprint == first.fingerprint


def test_what_is_not_enough_is_gone_on_with_and_unsealed_meanwhile(tmp_path: Path) -> None:
    make_folder(piece(), tmp_path / "w")
    seen: list[bool] = []

    def grow(path: Path) -> dict[str, Any]:
        seen.append((path / MANIFEST).exists())
        write_atomic(path / "part_9", "more")
        return {"parts": 5}

    grown = piece(make=grow, enough=lambda ref: ref.metadata["parts"] == 5)
    assert make_folder(grown, tmp_path / "w").metadata == {"parts": 5}
    assert make_folder(grown, tmp_path / "w").metadata == {"parts": 5}
    assert seen == [False]
    assert (tmp_path / "w" / "part_0").exists()


def test_unfinished_work_is_refused_emptied_or_left_as_the_piece_says(tmp_path: Path) -> None:
    begun = WorkFolder.open(tmp_path / "w", {"seed": 5})
    for how in ("keep", "leave"):
        with pytest.raises(VersatuneError, match=r"not finished: seed: 5 -> 0\. Ask first\."):
            make_folder(piece(on_change=how, advice="Ask first."), begun.path)
    assert make_folder(not_needed("leave"), begun.path).metadata == {"skipped": True}
    whole = make_folder(piece(), tmp_path / "v")
    assert make_folder(not_needed("leave", "Ask first."), whole.path) == whole
    assert make_folder(not_needed(), whole.path).metadata == {"skipped": True}


def test_one_process_works_in_a_folder_at_a_time(tmp_path: Path) -> None:
    with (
        exclusive(tmp_path / ".w.lock", "it"),
        pytest.raises(VersatuneError, match=r"another run is working on .*w \(lock"),
    ):
        make_folder(piece(), tmp_path / "w")


def test_what_goes_around_is_told_whether_the_work_was_there(tmp_path: Path) -> None:
    told: list[Any] = []

    @contextlib.contextmanager
    def around(path: Path, whole: bool) -> Iterator[None]:
        told.append(whole)
        yield
        told.append((path / "part_0").exists())

    for _ in range(2):
        make_folder(piece(around=around), tmp_path / "w")
    assert told == [False, True, True, True]


# --- in the catalog -------------------------------------------------------------------------


def run(entries: dict[str, Any], made: Any) -> Any:
    pipeline = Pipeline(
        [node(lambda: made, None, "work"), node(lambda found: found, "work", "out")]
    )
    return SequentialRunner().run(pipeline, DataCatalog(entries))["out"].load()


def test_saving_makes_the_folder_and_loading_gives_its_reference(tmp_path: Path) -> None:
    entry = FolderDataset(filepath=str(tmp_path / "w"))
    assert not entry.exists()
    assert run({"work": entry}, piece()) == FolderRef.load(tmp_path / "w")
    assert entry.exists()
    run({"work": entry}, piece(make=refuse))
    (tmp_path / "w" / "part_1").write_text("damaged")
    assert not entry.exists()
    with pytest.raises(DatasetError, match="part_1 was changed or damaged"):
        entry.load()


def test_a_fault_within_saving_keeps_its_kind(tmp_path: Path) -> None:
    """Kedro would make a DatasetError of it, which people are shown without a traceback."""

    def wrong(_: Path) -> dict[str, Any]:
        raise ZeroDivisionError

    reference = {"filepath": str(tmp_path / "r.json"), "path": str(tmp_path / "r")}
    for error, make in ((ZeroDivisionError, wrong), (AssertionError, refuse)):
        for entry, made in (
            (FolderDataset(filepath=str(tmp_path / "w")), piece(make=make)),
            (TrainedModelDataset(filepath=str(tmp_path / "t")), piece(make=make)),
            (FoldersDataset(filepath=str(tmp_path / "v")), {"a": piece(make=make)}),
            (CheckpointDataset(**reference), piece(make=make)),
            (StoreDataset(**reference), piece(make=make)),
        ):
            with pytest.raises(error):
                run({"work": entry}, made)


def test_pieces_lie_side_by_side_and_go_on_one_by_one(tmp_path: Path) -> None:
    entry = FoldersDataset(filepath=str(tmp_path / "all"))
    with pytest.raises(AssertionError):
        run({"work": entry}, {"a": piece(1), "b/c": piece(2, make=refuse)})
    assert not entry.exists()
    found = run({"work": entry}, {"a": piece(1, make=refuse), "b/c": piece(2)})
    assert {name: ref.fingerprint for name, ref in found.items()} == {
        "a": piece(1).fingerprint,
        "b/c": piece(2).fingerprint,
    }
    assert found["b/c"].path == tmp_path / "all" / "b" / "c"
    assert list(run({"work": entry}, {"b/c": piece(2)})) == ["b/c"], "the others are not read"
    index = tmp_path / "all" / "pieces.json"
    index.write_text(index.read_text().replace("b/c", "a"))
    with pytest.raises(DatasetError, match="damaged"):
        entry.load()


def test_paths_below_the_working_folder_are_kept_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A project that is moved finds its own folders, not those of the place it came from."""
    monkeypatch.chdir(tmp_path)
    assert PlaceDataset(filepath=str(tmp_path / "data" / "x")).load() == Path("data/x")
    assert PlaceDataset(filepath="/elsewhere/x").load() == Path("/elsewhere/x")
    with pytest.raises(DatasetError):
        PlaceDataset(filepath="x").save(1)
