"""A handful of architectures from rows to a question; tests.benchmarks.architectures has all."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.benchmarks.architectures import Bench


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    yield Bench(tmp_path_factory.mktemp("architectures"))


@pytest.mark.parametrize(
    ("kind", "dtype", "adapters", "layout", "came"),
    [
        # Text settings in a part of the configuration; windows in its layers.
        ("gemma3", "float32", False, "varlen", "works"),
        ("gemma3", "bfloat16", True, "varlen", "works"),
        # A router that is no linear layer but by class; chunks that are in the mask alone.
        ("llama4", "bfloat16", True, "position_ids", "works"),
        # State from example to example, in bfloat16 below its noise.
        ("mamba", "bfloat16", False, "padded", "works"),
        ("qwen3_next", "bfloat16", False, "padded", "works"),
        # Logits in another type than the head's; a form with an encoder, too.
        ("beam", "bfloat16", False, "varlen", "works"),
        ("bart", "float32", False, "padded", "works"),
        # A linear layer of its own class.
        ("falcon", "float32", True, "padded", "works"),
        ("bert", "bfloat16", False, "", "refused: BertLMHeadModel: its tokens see the tokens"),
        # A linear layer that adapters can't wrap is left out.
        ("mamba", "float32", True, "padded", "works"),
    ],
)
def test_an_architecture_works_or_is_refused(
    bench: Bench, kind: str, dtype: str, adapters: bool, layout: str, came: str
) -> None:
    found = bench.outcome(kind, dtype, adapters)
    assert found[0] == layout
    assert found[1].startswith(came), found[1]


def test_a_failure_is_told_from_a_refusal(tmp_path: Path) -> None:
    broken = Bench(tmp_path)
    broken.clean = None  # what comes of it is an AttributeError
    assert broken.outcome("llama", "float32", False)[1].startswith("FAILED: ")
    assert broken.outcome("none_such", "float32", False)[1].startswith("not made: ")


def test_a_composite_model_trains_in_two_processes(bench: Bench, tmp_path: Path) -> None:
    """Text reaches no parameter of its vision tower, for which processes don't wait."""
    bench.train("gemma3", "float32", tmp_path / "one", gradient_accumulation_steps=2)
    bench.train("gemma3", "float32", tmp_path / "two", launcher={"processes": 2})
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-5)
