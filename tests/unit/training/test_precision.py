"""`bf16: auto` and `dtype: auto` follow the device; a choice against it is named with its cost."""

import logging
import re
from typing import Any

import pytest
import torch

from versatune.modeling import precision as devices
from versatune.training import precision
from versatune.training.config import TrainParams
from versatune.training.precision import resolved, warn_if_slow


def params(**values: Any) -> TrainParams:
    return TrainParams.model_validate(values)


def on(monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    monkeypatch.setattr(precision, "fast_in_bfloat16", lambda _: fast)


@pytest.mark.parametrize(
    ("has", "fast"),
    [
        ({"avx512_f": True}, False),
        ({"avx512_f": True, "avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({}, False),
    ],
)
def test_a_cpu_is_fast_with_instructions_alone(
    has: dict[str, bool], fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    assert devices.fast_in_bfloat16("cpu") is fast


@pytest.mark.parametrize(("capability", "fast"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_gpu_is_fast_from_capability_8_on(
    capability: tuple[int, int], fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert devices.fast_in_bfloat16("cuda") is fast


@pytest.mark.parametrize(
    ("given", "fast", "wanted"),
    [
        ({"bf16": "auto"}, True, (True, "float32")),
        ({"bf16": "auto"}, False, (False, "float32")),
        ({"bf16": "auto", "dtype": "auto"}, True, (True, "bfloat16")),
        ({"bf16": "auto", "dtype": "auto"}, False, (False, "float32")),
        ({"dtype": "auto"}, True, (False, "bfloat16")),
        ({"dtype": "auto", "lora": {}}, True, (False, "float32")),
        ({"dtype": "auto", "bf16": "auto", "lora": {}}, True, (True, "bfloat16")),
        ({"dtype": "bfloat16", "bf16": "auto", "lora": {}}, False, (True, "bfloat16")),
        ({"bf16": True}, False, (True, "float32")),
        ({}, True, (False, "float32")),
    ],
)
def test_auto_is_what_the_device_is_fast_in_and_the_rest_stays(
    given: dict[str, Any],
    fast: bool,
    wanted: tuple[bool, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on(monkeypatch, fast)
    found = resolved(params(**given))
    assert (found.autocast, found.dtype) == wanted
    TrainParams.model_validate(found.model_dump())


def test_bfloat16_on_a_slow_processor_is_warned_about_with_a_measured_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    on(monkeypatch, False)
    warn_if_slow(params(bf16=True), "references.train")
    (said,) = caplog.messages
    assert said.startswith("references.train computes in bfloat16")
    assert "`references.train.bf16: auto`" in said
    times = re.search(r"takes ([\d.]+) times as long in bfloat16 as in float32", said)
    assert times and float(times[1]) > 0


@pytest.mark.parametrize(
    ("given", "fast"),
    [({"bf16": True}, True), ({"bf16": False}, False), ({}, True), ({"dtype": "bfloat16"}, True)],
)
def test_what_a_cpu_is_fast_in_and_float32_are_silent(
    given: dict[str, Any],
    fast: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    on(monkeypatch, fast)
    with caplog.at_level(logging.WARNING):
        warn_if_slow(params(**given), "train")
    assert not caplog.messages


def test_float32_on_a_gpu_made_for_bfloat16_is_warned_about(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    on(monkeypatch, True)
    monkeypatch.setattr(precision, "_device", lambda: "cuda")
    monkeypatch.setattr(precision, "bfloat16_time", lambda _: 0.05)
    warn_if_slow(params(), "train")
    assert "takes 20.0 times as long in float32 as in bfloat16" in caplog.text


def test_the_ratio_is_that_of_this_machine() -> None:
    assert 0.01 < devices.bfloat16_time("cpu") < 1000


def test_unsettled_parameters_are_no_precision() -> None:
    with pytest.raises(ValueError, match="not settled"):
        _ = params(bf16="auto").autocast
