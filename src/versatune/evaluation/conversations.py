"""Questions in the chat format behind lm-evaluation-harness's interface. Importing this imports the
harness."""

import dataclasses
from abc import abstractmethod
from collections import defaultdict
from functools import cached_property
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM

from versatune.data.answers import Answers, stop_tokens
from versatune.data.begin import begin_tokens
from versatune.data.conversations import RejectedError
from versatune.errors import VersatuneError
from versatune.evaluation.thinking import Asked, Replies, Thinking, stop_texts


class Conversations(TemplateLM):
    """Questions in the chat format are encoded as in training.

    The harness renders a question with the tokenizer's template and scores choices right after the
    generation prompt, where a trained model expects the text that its template writes there. Here a
    conversation keeps its turns until :class:`~versatune.data.answers.Answers` encodes them. The
    harness encodes texts without the chat format. What a model thinks first: :class:`Replies`.
    """

    alone = False
    """Whether a choice without the chat format is scored only by its own tokens, behind a text
    that begins as documents do in training; else as the harness does it."""
    tokenizer: Any
    shares = True
    """Whether several processes share the items; if not, each asks all of them."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.replies = Replies(self, Thinking())
        self.asked: dict[str, Asked] = {}
        self._prompts: dict[str, list[int]] = {}

    @cached_property
    def answers(self) -> Answers:
        return Answers(self.tokenizer)

    @abstractmethod
    def generation_config(self) -> Any:
        """The model's own, or None."""

    def begin(self, *, alone: bool) -> None:
        """Called before a task; nothing to do here. See :attr:`alone`."""

    @cached_property
    def stops(self) -> list[int]:
        """Tokens that end a generation: those of the template, the model and the tokenizer."""
        config = self.generation_config()
        found = stop_tokens(self.tokenizer, config.eos_token_id if config else None)
        return list(dict.fromkeys([*found, self.tokenizer.eos_token_id]))

    @cached_property
    def ends(self) -> list[str]:
        """Texts of :attr:`stops`, the tokens that end a generation."""
        return list(self.tokenizer.convert_ids_to_tokens(self.stops))

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The text of a question; its turns are kept.

        Without a generation prompt the last turn is the beginning of the answer. As in the
        harness, system turns are left out when the template refuses them.
        """
        asked, prefix = list(chat_history), ""
        if not add_generation_prompt:
            prefix = asked.pop()["content"]
        try:
            text = self.answers.prompt_text(asked)
        except RejectedError:
            asked = [turn for turn in asked if turn["role"] != "system"]
            try:
                text = self.answers.prompt_text(asked)
            except RejectedError as error:
                raise VersatuneError(
                    f"the question {asked[-1]['content'][:80]!r} can't be asked in the chat "
                    f"format: {error}."
                ) from None
        self.asked[text + prefix] = Asked(asked, prefix)
        return text + prefix

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Choices of one question are encoded together; see ``Answers.choices``."""
        questions: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        for number, request in enumerate(requests):
            if request.args[0] in self.asked:
                key = request.task_name, request.doc_id, request.args[0]
                questions[key].append(number)
        encoded: dict[int, Any] = {}
        leads = self.replies.leads({text for _, _, text in questions}, self._room(requests))
        for (task, _, text), numbers in questions.items():
            choices = [requests[number].args[1] for number in numbers]
            asked = self.asked[text]
            try:
                pairs = self.answers.choices(asked.messages, choices, asked.prefix, leads.get(text))
            except RejectedError as error:
                raise VersatuneError(
                    f"{task}: the choices {choices} to the question "
                    f"{asked.messages[-1]['content'][:80]!r} can't be scored: {error}."
                ) from None
            for number, choice, pair in zip(numbers, choices, pairs, strict=True):
                encoded[number] = ((text, choice), *pair)
        rest = [number for number in range(len(requests)) if number not in encoded]
        scores = self._loglikelihood_tokens(list(encoded.values()), disable_tqdm=disable_tqdm)
        found = dict(zip(encoded, scores, strict=True))
        if rest:
            plain = super().loglikelihood([requests[number] for number in rest], disable_tqdm)
            found |= zip(rest, plain, strict=True)
        return [found[number] for number in range(len(requests))]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The content of each generated answer, as the template defines it."""
        if not all(request.args[0] in self.asked for request in requests):
            return list(super().generate_until(requests, disable_tqdm))
        found = []
        written_to_all = self.replies.of(requests, disable_tqdm)
        for request, written in zip(requests, written_to_all, strict=True):
            content = written.content
            for stop in stop_texts(request):
                content = content.split(stop)[0]
            found.append(content)
        return found

    def generated(self, requests: list[Instance], disable_tqdm: bool) -> list[str]:
        """The texts as they are generated."""
        return list(super().generate_until(requests, disable_tqdm)) if requests else []

    def log_probabilities(self, rows: list[tuple[Any, list[int], list[int]]]) -> list[float]:
        """Of the second tokens of each row behind the first."""
        return [float(s) for s, _ in self._loglikelihood_tokens(rows, disable_tqdm=True)]

    @property
    def longest(self) -> int:
        """Tokens that the model reads; 0 where it has no limit."""
        return int(self.max_length or 0)

    def until_the_end(self, request: Instance, more: int = 0) -> Instance:
        """The request, which stops where an answer ends, with room for the text around the content.

        The task's own texts to stop at may stand in a thought: then they are looked for later.
        ``more``: tokens for a thought.
        """
        text, settings = request.args
        own = [] if more or self.answers.thinks else stop_texts(request)
        settings = {**settings, "until": [*self.ends, *own], "eos_token_id": self.stops}
        limit = self.longest
        usual: int = self.max_gen_toks if more else limit
        room = int(settings.get("max_gen_toks", usual)) + self.answers.overhead + more
        if room < limit:
            settings["max_gen_toks"] = room
        return dataclasses.replace(request, arguments=(text, settings))

    def _room(self, requests: list[Instance]) -> int:
        """Tokens of the longest choice."""
        texts = [r.args[1] for r in requests if r.args[0] in self.asked]
        longest = sorted(set(texts), key=len)[-8:]
        found = self.tokenizer(longest, add_special_tokens=False).input_ids if longest else []
        return max(map(len, found), default=0) + 4

    def tok_encode(self, string: str, *args: Any, **settings: Any) -> list[int]:
        """A question's tokens as training has them; of other texts see :attr:`alone`."""
        if string in self.asked:
            if string not in self._prompts:
                self._prompts[string] = self._prompt(self.asked[string])
            return self._prompts[string]
        if not self.alone:
            tokens: list[int] = super().tok_encode(string, *args, **settings)
            return tokens
        found: list[int] = self.tokenizer.encode(string, add_special_tokens=False)
        return found if found[: len(self._begin)] == self._begin else [*self._begin, *found]

    def _prompt(self, asked: Asked) -> list[int]:
        other = self.answers.thinking_prompt(asked.messages) if asked.thinking else None
        return other[1] if other else self.answers.prompt(asked.messages, asked.prefix)

    @cached_property
    def _begin(self) -> list[int]:
        return begin_tokens(self.tokenizer)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """The tokens of both; as the harness does it where the tokenizer merges their border."""
        if self.alone:
            before, both = self.tok_encode(context), self.tok_encode(context + continuation)
            if both[: len(before)] == before:
                return before, both[len(before) :]
        pair: tuple[list[int], list[int]] = super()._encode_pair(context, continuation)
        return pair
