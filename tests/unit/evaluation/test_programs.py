"""Questions about code: what is asked, what is run, and that a right answer passes."""

import pytest

from versatune.evaluation.config import SandboxLimits
from versatune.evaluation.programs import extract, program, question, stops
from versatune.evaluation.sandbox import refusal, run_program

HUMANEVAL = {
    "prompt": 'from typing import List\n\n\ndef total(xs: List[int]) -> int:\n    """Sum."""\n',
    "entry_point": "total",
    "test": "\n\ndef check(f):\n    assert f([1, 2]) == 3\n    assert f([]) == 0\n",
}
MBPP = {
    "text": "Write a function to double a number.",
    "test_setup_code": "import math",
    "test_list": ["assert double(2) == 4", "assert double(math.pi) > 6"],
}

isolated = pytest.mark.skipif(refusal() is not None, reason=f"no isolation here: {refusal()}")


@isolated
@pytest.mark.parametrize(
    ("kind", "item", "answer", "chat", "passes"),
    [
        ("humaneval", HUMANEVAL, "    return sum(xs)\n", False, True),
        ("humaneval", HUMANEVAL, "    return sum(xs) + 1\n", False, False),
        ("humaneval", HUMANEVAL, "return sum(xs)", False, False),
        (
            "humaneval",
            HUMANEVAL,
            "Sure:\n```python\ndef total(xs: List[int]):\n    return sum(xs)\n```\nDone.",
            True,
            True,
        ),
        ("mbpp", MBPP, "def double(x):\n    return 2 * x\n", False, True),
        ("mbpp", MBPP, "def double(x):\n    return x\n", False, False),
        ("mbpp", MBPP, "```\ndef double(x):\n    return 2 * x\n```", True, True),
        ("mbpp", MBPP, "import os\nos._exit(0)", False, False),
    ],
)
def test_right_answers_pass_and_wrong_ones_fail(
    kind: str, item: dict, answer: str, chat: bool, passes: bool
) -> None:
    found = run_program(program(kind, item, answer, chat), SandboxLimits())
    assert found.passed is passes, found.reason


def test_what_is_asked() -> None:
    assert question("humaneval", HUMANEVAL, chat=False) == HUMANEVAL["prompt"]
    assert HUMANEVAL["prompt"] in question("humaneval", HUMANEVAL, chat=True)
    asked = question("mbpp", MBPP, chat=False)
    assert asked.startswith('"""\nWrite a function') and asked.endswith('"""\n')
    assert all(test in question("mbpp", MBPP, chat=True) for test in MBPP["test_list"])
    sanitized = {"prompt": "Write f.", "test_list": ["assert f()"]}
    assert "Write f." in question("mbpp", sanitized, chat=False)


def test_generation_ends_where_the_answer_does() -> None:
    assert "\ndef " in stops("humaneval", chat=False)
    assert "\ndef " not in stops("mbpp", chat=False), "helper functions are part of the answer"
    assert stops("mbpp", chat=True) == []


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("x = 1", "x = 1"),
        ("```python\nx = 1\n```", "x = 1"),
        ("a\n```py\nx = 1\n```\n```python\ny = 2\n```", "x = 1"),
        ("```python\nx = 1", "x = 1"),
    ],
)
def test_code_is_taken_from_the_first_fence(answer: str, code: str) -> None:
    assert extract(answer) == code


def test_several_tests_stand_on_lines_of_their_own() -> None:
    item = {"text": "Write f.", "test_list": ["assert f(1) == 1", "assert f(2) == 2"]}
    asked = question("mbpp", item, chat=False)
    assert asked == '"""\nWrite f.\nassert f(1) == 1\nassert f(2) == 2\n"""\n'
    run = program("mbpp", item | {"test_imports": ["import re"]}, "A", chat=False)
    assert run == "import re\n\nA\nassert f(1) == 1\nassert f(2) == 2\n"
