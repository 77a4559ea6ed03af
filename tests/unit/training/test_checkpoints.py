"""Whole checkpoints and what is done with the others."""

from pathlib import Path

import pytest

from versatune.errors import VersatuneError
from versatune.training import trainer_checkpoints as checkpoints


def make(folder: Path, step: int, whole: bool = True) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True, exist_ok=True)
    (path / "model.safetensors").write_bytes(b"weights")
    if whole:
        checkpoints.mark(path, {"round": step})
    return path


def test_only_marked_ones_count_in_the_order_of_steps(tmp_path: Path) -> None:
    for step in (100, 20, 3):
        make(tmp_path, step)
    make(tmp_path, 200, whole=False)
    (tmp_path / "checkpoint-best").mkdir()
    assert [checkpoints.step_of(p) for p in checkpoints.complete(tmp_path)] == [3, 20, 100]
    assert checkpoints.state_of(tmp_path / "checkpoint-20") == {"round": 20}


def test_interrupted_ones_are_deleted_and_what_follows_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sound = make(tmp_path, 1)
    half = make(tmp_path, 2, whole=False)
    checkpoints.discard_unsound(tmp_path)
    assert not half.exists()
    assert checkpoints.complete(tmp_path) == [sound]
    assert "checkpoint-2 was not written to its end: deleted, training goes on from" in caplog.text
    assert "goes on from checkpoint-1." in caplog.text
    caplog.clear()
    (sound / "model.safetensors").write_bytes(b"damaged")
    checkpoints.discard_unsound(tmp_path)
    assert "deleted, training starts over." in caplog.text


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", checkpoints.STATE])
@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing"])
def test_damaged_ones_are_named_and_deleted(
    tmp_path: Path, name: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    sound = make(tmp_path, 1)
    path = tmp_path / "checkpoint-2"
    path.mkdir()
    (path / "optimizer.pt").write_bytes(b"moments")
    make(tmp_path, 2)
    content = (path / name).read_bytes()
    if damage == "missing":
        (path / name).unlink()
    else:
        half = len(content) // 2
        flipped = content[:half] + bytes([content[half] ^ 4]) + content[half + 1 :]
        (path / name).write_bytes(flipped if damage == "flipped" else content[:half])
    checkpoints.discard_unsound(tmp_path)
    assert checkpoints.complete(tmp_path) == [sound]
    assert "checkpoint-2" in caplog.text
    if name != checkpoints.STATE:
        assert name in caplog.text


def test_whatever_bit_of_a_mark_flips_it_is_found(tmp_path: Path) -> None:
    path = make(tmp_path, 1)
    content = (path / checkpoints.STATE).read_bytes()
    for place in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        make(tmp_path, 1)
        (path / checkpoints.STATE).write_bytes(flipped)
        checkpoints.discard_unsound(tmp_path)
        assert not path.exists(), flipped.decode(errors="replace")


def test_the_limit_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        make(tmp_path, step)
    checkpoints.rotate(tmp_path, limit=2, keep=1)
    assert [checkpoints.step_of(p) for p in checkpoints.complete(tmp_path)] == [1, 3, 4]
    checkpoints.rotate(tmp_path, limit=1, keep=None)
    assert [checkpoints.step_of(p) for p in checkpoints.complete(tmp_path)] == [4]


def test_what_lies_there_is_counted(tmp_path: Path) -> None:
    make(tmp_path / "checkpoints", 1, whole=False)
    (tmp_path / "staged").write_bytes(b"123")
    assert checkpoints.taken(tmp_path) == len(b"weights") + 3


def test_room_is_asked_for_in_words(tmp_path: Path) -> None:
    checkpoints.check_space(tmp_path, 1)
    with pytest.raises(VersatuneError, match="save_total_limit"):
        checkpoints.check_space(tmp_path, 10**18)


def test_another_folder_is_not_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="best"):
        checkpoints.step_of(tmp_path / "best")
