"""The model behind lm-evaluation-harness's interface. Importing this imports the harness."""

import dataclasses
from abc import abstractmethod
from collections import defaultdict
from functools import cached_property
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils_hf import stop_sequences_criteria

from versatune.data.answers import Answers, stop_tokens
from versatune.data.begin import begin_tokens
from versatune.data.conversations import RejectedError
from versatune.data.lengths import text_config, token_limit
from versatune.errors import VersatuneError
from versatune.evaluation import ranks
from versatune.evaluation.padding import MAX_BATCH, batch_size, one_by_one, reads_padding
from versatune.evaluation.thinking import Asked, Replies, Thinking, stop_texts
from versatune.modeling.caching import generates_with_cache


class Conversations(TemplateLM):
    """Questions in the chat format are encoded as in training.

    The harness renders a question with the tokenizer's template and scores choices right after the
    generation prompt, where a trained model expects the text that its template writes there. Here a
    conversation keeps its turns until :class:`~versatune.data.answers.Answers` encodes them. The
    harness encodes texts without the chat format. What a model thinks first: :class:`Replies`.
    """

    alone = False
    """Whether a choice without the chat format is scored by its own tokens alone, behind a text
    that begins as documents do in training; else as the harness does it."""
    tokenizer: Any
    shares = True
    """Whether several processes may share the items."""

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
        """Texts of :attr:`stops`."""
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
        usual = self.max_gen_toks if more else limit
        room = settings.get("max_gen_toks", usual) + self.answers.overhead + more
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


class ConversationLM(Conversations, HFLM):
    """Run by transformers, here or in several processes that each ask a part of the questions.

    ``shares`` False: this process asks all of them.
    """

    def generation_config(self) -> Any:
        return self.model.generation_config

    @property
    def rank(self) -> int:
        return ranks.rank() if self.shares else 0

    @property
    def world_size(self) -> int:
        return ranks.world() if self.shares else 1

    def all_gather(self, tensor: Any) -> Any:
        """Shape (processes,), of a number of each."""
        return ranks.gathered(tensor)

    def barrier(self) -> None:
        ranks.wait()

    def _model_call(self, inps: Any, *_: Any, **__: Any) -> Any:
        """Logits of whole rows, for which no cache is made: some models can't make one."""
        with torch.no_grad():
            return self.model(inps, use_cache=False).logits

    def _model_generate(
        self, context: Any, max_length: int, stop: list[str], attention_mask: Any, **settings: Any
    ) -> Any:
        def generate(context: Any, mask: Any, max_length: int) -> Any:
            if not self._takes_cache:
                return self._generate_without_cache(context, mask, max_length, stop, settings)
            return super(ConversationLM, self)._model_generate(
                context, max_length, stop, attention_mask=mask, **settings
            )

        if len(context) == 1 or not self._reads_padding:
            return generate(context, attention_mask, max_length)
        pad = self.tokenizer.pad_token_id
        return one_by_one(generate, context, attention_mask, max_length, pad)

    def _generate_without_cache(
        self, context: Any, mask: Any, max_length: int, stop: list[str], settings: dict[str, Any]
    ) -> Any:
        """As the harness, which always asks for a cache."""
        settings = {"do_sample": bool(settings.get("temperature")), **settings}
        if not settings["do_sample"]:
            settings.pop("temperature", None)
        return self.model.generate(
            input_ids=context,
            attention_mask=mask,
            max_length=max_length,
            stopping_criteria=stop_sequences_criteria(
                self.tokenizer, stop, context.shape[1], context.shape[0]
            ),
            pad_token_id=self.tokenizer.pad_token_id,
            use_cache=False,
            **settings,
        )

    @cached_property
    def _takes_cache(self) -> bool:
        return generates_with_cache(self.model)

    @cached_property
    def _reads_padding(self) -> bool:
        return reads_padding(self.model)

    def tok_batch_encode(
        self, strings: list[str], padding_side: str = "left", **settings: Any
    ) -> tuple[Any, Any]:
        """Questions as training has them, padded; else as the harness encodes them."""
        if not (self.alone or all(string in self.asked for string in strings)):
            found: tuple[Any, Any] = super().tok_batch_encode(strings, padding_side, **settings)
            return found
        limit = settings.get("left_truncate_len") or 0
        rows = [self.tok_encode(string)[-limit:] for string in strings]
        padded = self.tokenizer.pad(
            {"input_ids": rows}, padding_side=padding_side, return_tensors="pt"
        )
        return padded["input_ids"], padded["attention_mask"]

    def tok_decode(self, tokens: Any, skip_special_tokens: bool = True) -> str:
        """Control tokens stay in answers: the template's are taken out with it."""
        skip = skip_special_tokens and not self.asked
        return str(super().tok_decode(tokens, skip_special_tokens=skip))


class AnswerLM(ConversationLM):
    """Without the chat format, a choice is scored by its own tokens alone.

    The harness takes white space at the end of the question for the beginning of every choice.
    Its log-probability is the same for all, so ``acc`` does not notice, but ``acc_norm`` divides
    it by the length of the choice and so favours long ones. Generations end where an answer ends,
    in models whose generation config says so and in others. A text begins as documents do in
    training, and nothing that a tokenizer puts behind texts ends a question.
    """

    alone = True

    def _model_generate(self, *args: Any, **settings: Any) -> Any:
        return super()._model_generate(*args, **{"eos_token_id": self.stops, **settings})


def language_model(
    kind: type[ConversationLM], model: Any, tokenizer: Any, size: int | str, longest: int
) -> Conversations:
    """``kind`` around a loaded model; ``size`` ``auto`` on a CPU is :func:`batch_size`.

    ``model`` is one of transformers, or what another engine has loaded, which then is asked as
    ``kind`` asks. ``longest``: tokens of the longest row that will be asked.
    """
    if isinstance(model, Conversations):
        model.begin(alone=issubclass(kind, AnswerLM))
        return model
    limit = token_limit(model.config)
    if size == "auto" and model.device.type == "cpu":
        vocabulary = text_config(model.config).vocab_size
        size = batch_size(vocabulary, min(longest, limit or longest))
    return kind(
        pretrained=model,
        tokenizer=tokenizer,
        batch_size=size,
        max_batch_size=MAX_BATCH,
        # What load_model loads, though the kind has a form with an encoder, too (BART).
        backend="causal",
        # None leaves it to the harness, which doesn't look into the parts of a configuration.
        max_length=limit,
    )
