"""Folders that know what they were made from and whether they are whole."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from versatune import artifacts
from versatune.artifacts import (
    CHECKSUM,
    INPUTS,
    MANIFEST,
    FolderRef,
    check,
    differences,
    exclusive,
    file_digest,
    fingerprint,
    folder_digest,
    read_json,
    to_jsonable,
    write_atomic,
    write_json,
)
from versatune.errors import VersatuneError
from versatune.work import WorkFolder

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


class Block(BaseModel):
    size: int = 3
    where: Path = Path("a/b")


# --- values ---------------------------------------------------------------------------------


def test_plain_by_hand() -> None:
    value = {1: (Path("x"), {"b", "a"}), "block": Block(), "n": None}
    assert to_jsonable(value) == {
        "1": ["x", ["a", "b"]],
        "block": {"size": 3, "where": "a/b"},
        "n": None,
    }


@given(JSON)
def test_plain_of_json_is_itself(value: Any) -> None:
    assert to_jsonable(value) == value
    assert json.loads(json.dumps(to_jsonable(value))) == value


@given(st.dictionaries(st.text(), JSON, min_size=2, max_size=6))
def test_fingerprint_sees_content_and_not_order(value: dict[str, Any]) -> None:
    shuffled = dict(reversed(list(value.items())))
    assert fingerprint(value) == fingerprint(shuffled)
    assert fingerprint({**value, "more": 1}) != fingerprint({**value, "more": 2})
    assert len(fingerprint(value)) == 16


def test_fingerprint_is_the_same_in_every_process() -> None:
    """Sets are sorted, so that hash randomisation doesn't reach it."""
    text = b'{"a":["x","y","z"],"b":[1,2.5]}'
    expected = hashlib.sha256(text).hexdigest()[:16]
    assert fingerprint({"b": [1, 2.5], "a": {"z", "x", "y"}}) == expected


def test_folder_digest_sees_names_and_content(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_text("1")
    (tmp_path / "b").write_text("2")
    first = folder_digest(tmp_path)
    assert folder_digest(tmp_path) == first
    (tmp_path / "b").rename(tmp_path / "c")
    renamed = folder_digest(tmp_path)
    (tmp_path / "c").write_text("3")
    assert len({first, renamed, folder_digest(tmp_path)}) == 3


def test_file_digest_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert file_digest(tmp_path / "f").startswith("ba7816bf8f01cfea414140de5dae2223")


# --- files ----------------------------------------------------------------------------------


def test_write_atomic_replaces_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_atomic(path, "old")
    write_atomic(path, "néw")
    assert path.read_text(encoding="utf-8") == "néw"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@given(value=JSON)
def test_json_round_trip(value: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("json") / "value.json"
    write_json(path, value)
    assert read_json(path) == value


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b""])
def test_damaged_json_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(VersatuneError, match=r"x\.json can't be read"):
        read_json(tmp_path / "x.json")


def test_missing_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(VersatuneError, match=r"gone\.json can't be read"):
        read_json(tmp_path / "gone.json")


# --- locks ----------------------------------------------------------------------------------

HOLD = (
    "import sys, time; from pathlib import Path; from versatune.artifacts import exclusive\n"
    "with exclusive(Path(sys.argv[1]), 'it'):\n"
    "    print('held', flush=True); time.sleep(60)\n"
)


def test_a_lock_held_by_another_process_is_refused_and_ends_with_it(tmp_path: Path) -> None:
    lock = tmp_path / "deep" / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(VersatuneError, match=r"another run is working on the model \(lock .*"),
            exclusive(lock, "the model"),
        ):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with exclusive(lock, "the model"):
        pass


def test_a_lock_is_free_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), exclusive(tmp_path / "lock", "it"):
        raise KeyError
    with exclusive(tmp_path / "lock", "it"):
        pass


def test_a_lock_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(VersatuneError, match="can't be written"),
        exclusive(tmp_path / "file" / "lock", "it"),
    ):
        pass


# --- work folders ---------------------------------------------------------------------------


def sealed(path: Path, inputs: dict[str, Any], text: str = "result") -> WorkFolder:
    work = WorkFolder.open(path, inputs)
    write_atomic(work.path / "sub" / "out.txt", text)
    work.seal(best=3, names=("a", "b"))
    return work


def test_finished_work_is_found(tmp_path: Path) -> None:
    path = tmp_path / "work"
    first = sealed(path, {"seed": 0})
    again = WorkFolder.open(path, {"seed": 0})
    assert again.complete and again.ref == first.ref
    assert again.ref.metadata == {"best": 3, "names": ["a", "b"]}
    assert FolderRef.load(path) == FolderRef.load(path, verify=False) == first.ref
    assert FolderRef.model_validate(first.ref.model_dump(mode="json")) == first.ref


def test_the_manifest_lists_every_file_of_the_result(tmp_path: Path) -> None:
    work = sealed(tmp_path / "work", {"seed": 0})
    manifest = check(work.path)
    assert manifest["files"] == {"sub/out.txt": file_digest(work.path / "sub" / "out.txt")}
    assert manifest["fingerprint"] == work.fingerprint == fingerprint({"seed": 0})


def test_unfinished_work_is_gone_on_from(tmp_path: Path) -> None:
    work = WorkFolder.open(tmp_path / "work", {"seed": 0})
    (work.path / "part").write_text("half")
    again = WorkFolder.open(tmp_path / "work", {"seed": 0})
    assert not again.complete
    assert (again.path / "part").read_text() == "half"
    with pytest.raises(RuntimeError, match="not sealed"):
        _ = again.ref


def test_finished_work_that_is_taken_up_again_is_unfinished_and_not_damaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    work = sealed(tmp_path / "work", {"seed": 0})
    work.reopen()
    (work.path / "sub" / "out.txt").write_text("better")
    again = WorkFolder.open(work.path, {"seed": 0})
    assert not work.complete and not again.complete
    assert (again.path / "sub" / "out.txt").read_text() == "better" and not caplog.text
    assert again.seal().metadata == {}


@pytest.mark.parametrize("finished", [True, False])
def test_other_inputs_replace_the_folder(tmp_path: Path, finished: bool) -> None:
    path = tmp_path / "work"
    if finished:
        sealed(path, {"seed": 0})
    else:
        (WorkFolder.open(path, {"seed": 0}).path / "part").write_text("half")
    work = WorkFolder.open(path, {"seed": 1})
    assert not work.complete
    assert [p.name for p in path.iterdir()] == [INPUTS]
    assert [p.name for p in tmp_path.iterdir()] == ["work"]


def test_unfinished_work_can_be_kept_from_other_inputs(tmp_path: Path) -> None:
    path = tmp_path / "work"
    work = WorkFolder.open(path, {"seed": 0, "train": {"rate": 0.1}})
    (work.path / "part").write_text("half")
    with pytest.raises(
        VersatuneError, match=r"finished: seed: 0 -> 1, train\.rate: 0\.1 -> 0\.2\."
    ):
        WorkFolder.open(path, {"seed": 1, "train": {"rate": 0.2}}, on_change="keep")
    assert (path / "part").read_text() == "half"


def test_a_key_added_as_null_is_named_in_the_refusal(tmp_path: Path) -> None:
    WorkFolder.open(tmp_path / "work", {"seed": 0})
    with pytest.raises(VersatuneError, match=r"cap: \(not given\) -> null"):
        WorkFolder.open(tmp_path / "work", {"seed": 0, "cap": None}, on_change="keep")


def test_finished_work_can_be_kept_aside_from_other_inputs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One level: the third finds the second kept and the first gone."""
    caplog.set_level("INFO")
    path, previous = tmp_path / "work", tmp_path / "work.previous"
    for seed in (0, 1, 2):
        work = WorkFolder.open(path, {"seed": seed}, on_change="keep")
        assert not work.complete and [p.name for p in path.iterdir()] == [INPUTS]
        if seed:
            assert f"(seed: {seed - 1} -> {seed}): kept as" in caplog.text
            assert FolderRef.load(previous).metadata == {"seed": seed - 1}
        (work.path / "out.txt").write_text(str(seed))
        work.seal(seed=seed)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["work", "work.previous"]


def test_what_is_not_ours_is_not_pushed_aside_for_it(tmp_path: Path) -> None:
    ref = sealed(tmp_path / "work", {"seed": 0}).ref
    (tmp_path / "work.previous").mkdir()
    with pytest.raises(VersatuneError, match=r"work\.previous .* was not made by versatune"):
        WorkFolder.open(tmp_path / "work", {"seed": 1}, on_change="keep")
    assert FolderRef.load(tmp_path / "work") == ref


def test_a_folder_of_somebody_else_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(VersatuneError, match="was not made by versatune"):
        WorkFolder.open(tmp_path, {"seed": 0})
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "work").write_text("a file")
    with pytest.raises(VersatuneError, match="was not made by versatune"):
        WorkFolder.open(tmp_path / "work", {})
    with pytest.raises(VersatuneError, match="can't be written"):
        WorkFolder.open(tmp_path / "work" / "below", {})


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    assert not WorkFolder.open(tmp_path, {"seed": 0}).complete


def test_a_folder_whose_first_file_was_cut_short_is_taken(tmp_path: Path) -> None:
    """A process killed while it wrote the inputs leaves only their temporary file."""
    (tmp_path / f".{INPUTS}.4711.tmp").write_text('{"se')
    work = WorkFolder.open(tmp_path, {"seed": 0})
    work.seal()
    assert sorted(p.name for p in tmp_path.iterdir()) == [INPUTS, MANIFEST]


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_damage_is_found_told_and_made_again(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "work"
    ref = sealed(path, {"seed": 0}).ref
    if damage == "changed":
        (path / "sub" / "out.txt").write_text("forged")
    else:
        (path / "sub" / "out.txt").unlink()
    with pytest.raises(VersatuneError, match=rf"out\.txt .*{damage}.*delete .* and run again"):
        FolderRef.load(path)
    assert FolderRef.load(path, verify=False) == ref
    work = WorkFolder.open(path, {"seed": 0})
    assert not work.complete
    assert [p.name for p in path.iterdir()] == [INPUTS]
    assert "Made again." in caplog.text


@pytest.mark.parametrize(
    "manifest",
    ["{", "[]", "{}", '{"files": {}}', '{"files": [], "facts": {}, "fingerprint": "x"}', "null"],
)
def test_a_damaged_manifest_is_told_and_made_again(tmp_path: Path, manifest: str) -> None:
    path = tmp_path / "work"
    sealed(path, {"seed": 0})
    (path / MANIFEST).write_text(manifest)
    for verify in (True, False):
        with pytest.raises(VersatuneError, match="delete"):
            FolderRef.load(path, verify=verify)
    assert not WorkFolder.open(path, {"seed": 0}).complete


def test_whatever_bit_of_a_manifest_flips_it_is_found(tmp_path: Path) -> None:
    """A fact that changed is still JSON, and would be used."""
    path = tmp_path / "work"
    work = WorkFolder.open(path, {"seed": 0})
    (path / "out.txt").write_text("out")
    ref = work.seal(rows=1234, share=0.25, domains=["law", "other"], ended=None)
    content = (path / MANIFEST).read_bytes()
    for place in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        (path / MANIFEST).write_bytes(flipped)
        with pytest.raises(VersatuneError, match=r"(damaged|can't be read).*delete"):
            FolderRef.load(path)
    (path / MANIFEST).write_bytes(content)
    assert FolderRef.load(path) == ref


def test_a_manifest_from_before_there_were_checksums_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "work"
    ref = sealed(path, {"seed": 0}).ref
    manifest = read_json(path / MANIFEST)
    del manifest[CHECKSUM]
    write_json(path / MANIFEST, manifest)
    assert FolderRef.load(path) == ref
    write_json(path / MANIFEST, {**manifest, "checksun": "x"})
    with pytest.raises(VersatuneError, match="damaged"):
        FolderRef.load(path)


def test_damaged_inputs_are_told_with_what_to_delete(tmp_path: Path) -> None:
    path = tmp_path / "work"
    sealed(path, {"seed": 0})
    (path / INPUTS).write_text("{")
    with pytest.raises(VersatuneError, match=rf"damaged; delete {path} and run again"):
        WorkFolder.open(path, {"seed": 0})


@pytest.mark.parametrize("verify", [True, False])
def test_an_unfinished_folder_has_no_reference(tmp_path: Path, verify: bool) -> None:
    WorkFolder.open(tmp_path / "work", {"seed": 0})
    for path in (tmp_path / "work", tmp_path / "nowhere"):
        with pytest.raises(VersatuneError, match="is not finished"):
            FolderRef.load(path, verify=verify)


def test_what_a_killed_discard_left_is_cleared(tmp_path: Path) -> None:
    sealed(tmp_path / "work", {"seed": 0})
    (tmp_path / ".work.discarded" / "old").mkdir(parents=True)
    WorkFolder.open(tmp_path / "work", {"seed": 1})
    assert [p.name for p in tmp_path.iterdir()] == ["work"]


def test_inputs_may_be_models_and_paths(tmp_path: Path) -> None:
    inputs = {"block": Block(), "files": (Path("x"),)}
    sealed(tmp_path / "work", inputs)
    assert WorkFolder.open(tmp_path / "work", inputs).complete
    assert not WorkFolder.open(tmp_path / "work", {**inputs, "block": Block(size=4)}).complete


def test_difference_by_hand() -> None:
    found = {"a": 1, "b": {"c": [1], "d": 2}, "same": 0}
    wanted = {"a": 2, "b": {"c": [1, 2], "d": 2}, "same": 0, "new": "x" * 100}
    assert ", ".join(differences(found, wanted)) == (
        'a: 1 -> 2, b.c: [1] -> [1, 2], new: (not given) -> "' + "x" * 56 + "..."
    )


@given(JSON, JSON)
def test_difference_names_something_exactly_when_there_is_one(one: Any, two: Any) -> None:
    found, wanted = {"key": one}, {"key": two}
    assert bool(differences(found, wanted)) == (found != wanted)


def test_a_large_file_is_read_again_when_it_was_written_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, read = tmp_path / "shard", []
    real = artifacts._digest
    monkeypatch.setattr(artifacts, "_digest", lambda path: (read.append(path), real(path))[1])
    monkeypatch.setattr(artifacts, "LARGE", 4)
    file.write_bytes(b"large")
    first = artifacts.file_digest(file)
    assert artifacts.file_digest(file) == first and len(read) == 1
    file.write_bytes(b"LARGE")
    os.utime(file, ns=(1, 1))
    assert artifacts.file_digest(file) == hashlib.sha256(b"LARGE").hexdigest() and len(read) == 2
    monkeypatch.setattr(artifacts, "LARGE", 1 << 20)
    assert artifacts.file_digest(file) == artifacts.file_digest(file) and len(read) == 4
