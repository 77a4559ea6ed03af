"""How a program's end is told, without running one; how many thoughts did not end."""

import logging
import signal
from typing import Any

import pytest
from lm_eval.api.instance import Instance

from versatune.evaluation.config import SandboxLimits
from versatune.evaluation.sandbox import ProgramResult, _advice, _verdict
from versatune.evaluation.thinking import Thinking, stop_texts

LIMITS = SandboxLimits(wall_seconds=2.5, cpu_seconds=3)


@pytest.mark.parametrize(
    ("result", "passed", "reason"),
    [
        ({"passed": True, "said": ""}, True, "passed"),
        ({"timeout": True}, False, "still running after 2.5 s"),
        ({"signal": int(signal.SIGXCPU)}, False, "used more than 3 s of processor time"),
        ({"signal": int(signal.SIGSEGV)}, False, "killed by signal SIGSEGV"),
        ({"passed": False, "said": ""}, False, "left before its end"),
        ({"passed": False, "said": "Traceback\nAssertionError: no"}, False, "AssertionError: no"),
        ({"passed": False, "said": "x" * 300}, False, "x" * 200),
        ({"passed": True, "said": "", "timeout": False}, True, "passed"),
    ],
)
def test_how_a_program_ended(result: dict[str, Any], passed: bool, reason: str) -> None:
    assert _verdict(result, LIMITS) == ProgramResult(passed, reason)


def test_what_to_do_where_programs_cant_be_run() -> None:
    assert _advice("no namespaces") == (
        "programs written by the model are run only fully isolated, and this machine does not "
        "allow that (no namespaces). Run as an ordinary user where user namespaces are allowed, or "
        "as root with CAP_SYS_ADMIN (docker: --cap-add SYS_ADMIN --security-opt "
        "seccomp=unconfined), Linux 5.12 or newer; or set evaluate.code.run: false."
    )


def test_thoughts_that_did_not_end_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="versatune"):
        Thinking(64, "all", asked=5).tell("bar")
        assert not caplog.messages
        Thinking(64, "all", asked=5, unended=2).tell("bar")
    assert caplog.messages == [
        "bar: 2 of 5 thoughts did not end within evaluate.max_thought_tokens (64): no answer was "
        "written to these questions; before choices the thought was cut."
    ]


@pytest.mark.parametrize(
    ("until", "texts"), [("\n", ["\n"]), (["\n", "", "Q:"], ["\n", "Q:"]), ([], []), (None, [])]
)
def test_where_a_task_ends_an_answer(until: Any, texts: list[str]) -> None:
    request = Instance("generate_until", {}, ("question", {"until": until}), 0, ("task", 0, 1))
    assert stop_texts(request) == texts
    bare = Instance("generate_until", {}, ("question", {}), 0, ("task", 0, 1))
    assert stop_texts(bare) == []
