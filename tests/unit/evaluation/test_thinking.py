"""Which questions are asked again, one way or the other, and what is read: a scripted model."""

from collections.abc import Mapping
from typing import Any

import pytest
from lm_eval.api.instance import Instance

from tests.helpers.chats import tokenizer_of
from versatune.data.answers import Answers
from versatune.evaluation.thinking import Asked, Replies, Thinking

ROOM = 60
THOUGHT = "<think>\nit is old\n</think>\n\n"


class Scripted:
    """Writes what it is told, by prompt: the first texts with little room, the last with more."""

    longest = 0

    def __init__(self, template: str, writes: Mapping[str, list[str]]) -> None:
        self.tokenizer = tokenizer_of("bytes", template)
        self.answers = Answers(self.tokenizer)
        self.ends = ["<|im_end|>"]
        self.asked: dict[str, Asked] = {}
        self.writes = {question: list(texts) for question, texts in writes.items()}
        self.rooms: list[list[int]] = []
        self.scored: list[list[tuple[Any, list[int], list[int]]]] = []
        self.means: list[list[float]] = []

    def ask(self, question: str, prefix: str = "", stops: tuple[str, ...] = ()) -> Instance:
        turns = [{"role": "user", "content": question}]
        text = self.answers.prompt_text(turns) + prefix
        self.asked[text] = Asked(turns, prefix)
        settings = {"max_gen_toks": ROOM, "until": list(stops)}
        return Instance("generate_until", {}, (text, settings), 0, ("task", 0, 1))

    def tok_encode(self, string: str) -> list[int]:
        return list(self.tokenizer(string, add_special_tokens=False).input_ids)

    def until_the_end(self, request: Instance, more: int = 0) -> Instance:
        text, settings = request.args
        changed = {**settings, "max_gen_toks": settings["max_gen_toks"] + more}
        return Instance("generate_until", {}, (text, changed), 0, ("task", 0, 1))

    def generated(self, requests: list[Instance], disable_tqdm: bool) -> list[str]:
        del disable_tqdm
        self.rooms.append([r.args[1]["max_gen_toks"] for r in requests])
        return [self.writes[self._question(r)].pop(0) for r in requests]

    def _question(self, request: Instance) -> str:
        asked = self.asked[request.args[0]]
        return ("thinking: " if asked.thinking else "") + asked.messages[0]["content"]

    def log_probabilities(self, rows: list[tuple[Any, list[int], list[int]]]) -> list[float]:
        self.scored.append(rows)
        return [mean * len(row[2]) for mean, row in zip(self.means.pop(0), rows, strict=True)]


def replies(lm: Scripted, thinking: Thinking) -> Replies:
    return Replies(lm, thinking)


LONG = "<think>\n" + "the old river judge " * 20


def test_a_thought_that_is_cut_is_asked_again_with_more_room() -> None:
    writes = {"a": [f"{THOUGHT}law"], "b": [LONG, f"{LONG}\n</think>\n\nriver"], "c": ["plain"]}
    lm, thinking = Scripted("thinking", writes), Thinking(tokens=30)
    found = replies(lm, thinking).of([lm.ask("a"), lm.ask("b"), lm.ask("c")])
    assert [written.content for written in found] == ["law", "river", "plain"]
    assert lm.rooms == [[ROOM] * 3, [ROOM + 30]]
    assert (thinking.asked, thinking.unended) == (2, 0)


@pytest.mark.parametrize(("left", "more"), [(7, 7), (30, 30), (40, 30), (0, None)])
def test_no_more_room_than_the_model_has(left: int, more: int | None) -> None:
    """Its positions hold the prompt, the answer's room, and ``left``."""
    lm, thinking = Scripted("thinking", {"b": [LONG, LONG]}), Thinking(tokens=30)
    request = lm.ask("b")
    lm.longest = len(lm.tok_encode(request.args[0])) + ROOM + left
    (written,) = replies(lm, thinking).of([request])
    assert (written.content, written.ended) == ("", False)
    assert lm.rooms == ([[ROOM], [ROOM + more]] if more else [[ROOM]])
    assert (thinking.asked, thinking.unended) == (1, 1)


def test_a_text_of_the_tasks_own_may_have_ended_a_thought() -> None:
    """However short the text is; without a thought, or at the template's end, it is whole."""
    for stops, again in (((".",), True), (("<|im_end|>",), False), ((), False)):
        texts = ["<think>\nit", f"{THOUGHT}law"]
        lm = Scripted("thinking", {"a": texts if again else texts[1:]})
        (written,) = replies(lm, Thinking(tokens=9)).of([lm.ask("a", stops=stops)])
        assert written.content == "law" and len(lm.rooms) == 1 + again


@pytest.mark.parametrize(
    ("means", "content"), [(([-1.5], [-1.0]), "old"), (([-1.0], [-1.5]), "new")]
)
def test_the_answer_of_which_the_model_is_surer_by_token(
    means: tuple[list[float], list[float]], content: str
) -> None:
    """The thought's answer is longer: the sum of its log-probabilities is lower either way."""
    lm = Scripted("thought-off", {"a": ["new"], "thinking: a": [f"{THOUGHT}old"]})
    lm.means = list(means)
    thinking = Thinking(tokens=30, rows="some")
    (written,) = replies(lm, thinking).of([lm.ask("a")])
    assert written.content == content
    ((_, _, plain),), ((_, _, thought),) = lm.scored
    assert len(thought) > 1.5 * len(plain)
    assert thinking.asked == (content == "old")


@pytest.mark.parametrize(
    ("tokens", "rows", "content", "asked"),
    [(30, "all", "old", 1), (30, "none", "new", 0), (0, "all", "new", 0), (0, None, "new", 0)],
)
def test_rows_decide_how_it_is_asked(tokens: int, rows: Any, content: str, asked: int) -> None:
    lm = Scripted("thought-off", {"a": ["new"], "thinking: a": [f"{THOUGHT}old"]})
    thinking = Thinking(tokens, rows)
    (written,) = replies(lm, thinking).of([lm.ask("a")])
    assert (written.content, thinking.asked) == (content, asked)
    assert len(lm.rooms) == 1 and not lm.scored


def test_an_answer_that_is_empty_is_the_least_sure() -> None:
    lm = Scripted("thought-off", {"a": [""], "thinking: a": [f"{THOUGHT}old"]})
    lm.means = [[-0.1], [-9.0]]
    (written,) = replies(lm, Thinking(30, "some")).of([lm.ask("a")])
    assert written.content == "old"


def test_leads_are_of_questions_that_it_thinks_about() -> None:
    """A short beginning tells; a question whose answer is begun by the task has none."""
    writes = {"a": ["<think>\nit", f"{THOUGHT}law"], "b": ["river"], "c": []}
    lm, thinking = Scripted("thinking", writes), Thinking(tokens=30)
    texts = [lm.ask(q, prefix).args[0] for q, prefix in (("a", ""), ("b", ""), ("c", "So"))]
    assert replies(lm, thinking).leads(texts, ROOM) == {texts[0]: THOUGHT}
    assert lm.rooms == [[lm.answers.opening] * 2, [ROOM]]
    assert thinking.asked == 1
    for none in (Thinking(0), Thinking(30, "none")):
        assert replies(lm, none).leads(texts, ROOM) == {}
    assert replies(lm, thinking).leads(texts[2:], ROOM) == {}
    assert len(lm.rooms) == 2
