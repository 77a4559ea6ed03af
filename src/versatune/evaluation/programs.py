"""Questions whose answer is a program (HumanEval, MBPP): what is asked, and what is run.

Formats: Chen et al. 2021 (HumanEval), Austin et al. 2021 (MBPP); the zero-shot prompt of MBPP is
a docstring with the task and its tests, as in the bigcode evaluation harness.
"""

import re
from typing import Any

STOPS = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint(", "\nassert ", "\n```")
"""Where a continued function has ended (HumanEval)."""

MBPP_STOPS = ("\nclass Test", "\nassert ", '\n"""', "\nprint(", "\nif __name__", "\n```")
"""Where a continued file has ended; helper functions are part of the answer."""

_FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:\n```|\Z)", re.DOTALL)


def question(kind: str, item: dict[str, Any], chat: bool) -> str:
    """What the model is asked: to continue a file, or in the chat format."""
    if kind == "humaneval":
        prompt = str(item["prompt"])
        if not chat:
            return prompt
        return (
            "Complete this Python function. Answer with the whole function in one code block.\n\n"
            f"```python\n{prompt}```"
        )
    text, tests = str(item.get("text") or item["prompt"]), "\n".join(item["test_list"])
    if not chat:
        return f'"""\n{text}\n{tests}\n"""\n'
    return (
        f"{text}\nAnswer with Python code in one code block. It must pass these tests:\n\n"
        f"```python\n{tests}\n```"
    )


def stops(kind: str, chat: bool) -> list[str]:
    """Texts at which generation ends, besides the end token."""
    if chat:
        return []
    return list(STOPS if kind == "humaneval" else MBPP_STOPS)


def program(kind: str, item: dict[str, Any], answer: str, chat: bool) -> str:
    """The program that passes exactly when ``answer`` does: the answer, then its tests."""
    code = extract(answer) if chat else answer
    if kind == "humaneval":
        # In the chat format the prompt stands first for its imports; the answer's definition
        # replaces the empty one it ends with.
        joint = "\n" if chat else ""
        return f"{item['prompt']}{joint}{code}\n{item['test']}\ncheck({item['entry_point']})\n"
    setup = "\n".join([*item.get("test_imports", []), item.get("test_setup_code") or ""])
    tests = "\n".join(item["test_list"])
    return f"{setup}\n{code}\n{tests}\n"


def extract(answer: str) -> str:
    """The first fenced code block of a chat answer, or all of it when there is none."""
    found = _FENCE.search(answer)
    return found.group(1) if found else answer
