"""Talking to OpenAI-compatible servers: many requests at once, at a limited rate.

Retries (timeouts, broken connections, 408, 409, 429, 5xx), exponential waits with jitter and the
server's Retry-After are the openai client's own.
"""

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, TypeVar

import openai

from versatune.data.user_turn import UserTurn
from versatune.errors import VersatuneError
from versatune.samplers.base import Sample, Sampler, stream
from versatune.samplers.config import SamplingParams, ServerParams

logger = logging.getLogger(__name__)

T = TypeVar("T")
NO_KEY = "none"
"""Sent if no key is set: the client requires one, local servers ignore it."""
HOPELESS = (
    openai.AuthenticationError,
    openai.PermissionDeniedError,
    openai.NotFoundError,
    openai.BadRequestError,
    openai.UnprocessableEntityError,
)
"""HTTP status codes that a retry can't fix."""
OTHERWISE = {"max_tokens": "max_completion_tokens", "temperature": ""}
"""What some chat models do not take -> what they take in its place; empty: nothing."""
_REFUSED = re.compile(
    "unsupported|not support|unrecogni[sz]ed|unknown|not permitted|not allowed|deprecated",
    re.IGNORECASE,
)
"""How servers say that a model does not take a parameter."""


class FilteredError(ValueError):
    """The server's content filter turns the prompt down: about this text, not about the server."""


class Server:
    """A server with its request limits. Safe to use from several threads."""

    def __init__(self, params: ServerParams, key: str, api_key: str = "") -> None:
        """``key``: where the parameters stand. Raises VersatuneError without a model's name."""
        if not params.model:
            raise VersatuneError(
                f"{key}.model is empty: name the model as {params.place} knows it."
            )
        self.params = params
        self._key, self._secret = key, api_key
        self._client = openai.OpenAI(
            base_url=params.url,
            api_key=api_key or NO_KEY,
            timeout=params.timeout,
            max_retries=params.max_retries,
            http_client=openai.DefaultHttpxClient(
                event_hooks={"request": [lambda _: self._take_turn()]}  # the client's retries too
            ),
        )
        self._pause = 60 / params.requests_per_minute if params.requests_per_minute else 0.0
        self._next = 0.0
        self._names: dict[str, str] = {}
        self._lock = threading.Lock()

    def complete(self, prompt: str, **how: Any) -> Any:
        """One /completions request."""
        return self._ask(self._client.completions.create, prompt=prompt, **how)

    def chat(self, messages: list[dict[str, str]], **how: Any) -> Any:
        """One /chat/completions request, of :data:`OTHERWISE` without what the model refuses."""
        return self._ask(self._chat, messages=messages, **how)

    def each(
        self, ask: Callable[[T], Any], items: Sequence[T]
    ) -> Iterator[tuple[T, Any, Exception | None]]:
        """Ask for all items, ``concurrency`` at a time; yields (item, answer, error) as they come.

        Errors that a retry can't fix stop everything with a VersatuneError.
        """
        pool = ThreadPoolExecutor(self.params.concurrency)
        try:
            waiting = {pool.submit(ask, item): item for item in items}
            for done in as_completed(waiting):
                error = done.exception()
                if isinstance(error, VersatuneError):
                    raise error
                if error is not None and not isinstance(error, openai.OpenAIError | ValueError):
                    raise error
                answer = None if error else done.result()
                yield waiting[done], answer, error if isinstance(error, Exception) else None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def told(self, error: BaseException | None) -> str:
        """An error's text for people: a server may repeat the key that it was sent."""
        text = f"{type(error).__name__}: {error}"
        return (text.replace(self._secret, "(key)") if self._secret else text)[:300]

    def _ask(self, request: Callable[..., Any], **how: Any) -> Any:
        try:
            return request(model=self.params.model, **how)
        except HOPELESS as error:
            if error.code == "content_filter":
                raise FilteredError(self.told(error)) from None
            raise VersatuneError(
                f"{self._key}: {self.params.place} refuses model {self.params.model!r}: "
                f"{error.status_code} {self.told(error)}"
            ) from None  # its own text may hold the key, and tracebacks are kept

    def _chat(self, **how: Any) -> Any:
        while True:
            named = {self._names.get(name, name): value for name, value in how.items()}
            sent = {name: value for name, value in named.items() if name}
            try:
                return self._client.chat.completions.create(**sent)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                refused = next((n for n in OTHERWISE if n in sent and _refuses(error, n)), None)
                if refused is None:
                    raise
                self._ask_without(refused, self.told(error))

    def _ask_without(self, name: str, told: str) -> None:
        with self._lock:
            known = name in self._names
            self._names[name] = other = OTHERWISE[name]
        if not known:
            how = f"asked for as {other}" if other else "left to the server"
            logger.warning(
                "%s: %s takes no %s for model %r; it is %s from here on (%s).",
                *(self._key, self.params.place, name, self.params.model, how, told),
            )

    def _take_turn(self) -> None:
        if not self._pause:
            return
        with self._lock:
            turn = max(self._next, time.monotonic())
            self._next = turn + self._pause
        time.sleep(max(0.0, turn - time.monotonic()))


class ServerSampler(Sampler):
    """Draws from a served model: for models this machine can't hold.

    Each sample asks with its own seed; whether the same seed gives the same text again is
    up to the server. A sample that fails stops the probe and is not left out, since failures may
    not be random; run it again to continue.
    """

    PASSES = 3
    ENOUGH = 4
    """Samples of a batch that can't all be equal unless the server decodes greedily."""

    def __init__(
        self, params: SamplingParams, api_key: str = "", turn: UserTurn | None = None
    ) -> None:
        """``turn``: the user's turn that every sequence begins with, in place of the prompt."""
        self.params, self.turn = params, turn
        self.server = Server(params.server, "probe.sampling.server", api_key)
        drawing = params.model_dump(
            mode="json", exclude={"server", "start", "dtype", "engine", "vllm"}
        )
        where = {"url": params.server.place, "model": params.server.model}
        self.about = {**where, **drawing}
        if turn is not None:
            self.about["turn"] = [turn.opening, turn.handover]

    @property
    def begins(self) -> str:
        prompt = self.params.prompt if self.turn is None else self.turn.opening
        return f"the server's own start, then {prompt!r}"

    def batch(self, indices: range, seed: int) -> Iterator[Sample]:
        left = list(indices)
        texts: set[str] = set()
        trouble: Exception | None = None
        for _ in range(self.PASSES):
            failed = []
            for index, sample, error in self.server.each(lambda i: self._ask(i, seed), left):
                if error is None:
                    texts.add(sample.text)
                    yield sample
                else:
                    failed.append(index)
                    trouble = error
            if not failed:
                self._refuse_greedy(len(indices), texts)
                return
            left = failed
        raise VersatuneError(
            f"{self.params.server.place} gave no answer to {len(left)} of {len(indices)} requests, "
            f"tried {self.PASSES} times (last: {self.server.told(trouble)}). "
            "Earlier samples are kept: run again to continue."
        )

    def _refuse_greedy(self, n: int, texts: set[str]) -> None:
        # transformers serve, for one, samples only when the model's own generation_config says so
        if n >= self.ENOUGH and len(texts) == 1:
            raise VersatuneError(
                f"{self.params.server.place} gave {n} requests of different seeds the same text: "
                "it does not sample. Switch sampling on there (for `transformers serve`: "
                '"do_sample": true, "top_k": 0 in the model\'s generation_config.json).'
            )

    def _ask(self, index: int, seed: int) -> Sample:
        numbers = stream(seed, index, 2)
        if self.turn is None:
            text, n, ended = self._complete(self.params.prompt, numbers[0])
            return Sample(index=index, text=text, n_tokens=n, ended=ended)
        turn, limit = self.turn, self.params.max_new_tokens
        asked, n, ended = self._complete(turn.opening, numbers[0], stop=[turn.end])
        asked, answer = asked.partition(turn.end)[0].rstrip(), ""
        if ended and n < limit:
            prompt = turn.opening + asked + turn.handover
            answer, more, ended = self._complete(prompt, numbers[1], limit - n)
            n += more
        written = turn.read(answer)
        parts = asked.strip(), written.content.strip(), written.thought
        return Sample.of_turns(*parts, index=index, n_tokens=n, ended=ended)

    def _complete(
        self, prompt: str, number: float, limit: int | None = None, **how: Any
    ) -> tuple[str, int, bool]:
        """What the server writes after ``prompt``, its number of tokens, and whether it ended."""
        extra: dict[str, Any] = {}
        if self.params.top_k:
            extra["top_k"] = self.params.top_k
        if self.params.repetition_penalty != 1:
            extra["repetition_penalty"] = self.params.repetition_penalty
        answer = self.server.complete(
            prompt,
            max_tokens=limit or self.params.max_new_tokens,
            temperature=self.params.temperature,
            top_p=self.params.top_p,
            seed=int(number * 2**31),
            extra_body=extra or None,
            **how,
        )
        choice = first_choice(answer)
        if not isinstance(choice.text, str):
            raise ValueError("the answer holds no text")
        if thought_beside(choice):
            raise VersatuneError(
                f"probe.sampling.server: {self.params.server.place} takes thoughts out of its "
                "texts, so they are not what the model writes: switch off the server's reasoning "
                "parser."
            )
        used = answer.usage.completion_tokens if answer.usage else 0
        return choice.text, used or 0, choice.finish_reason == "stop"


def _refuses(error: openai.APIStatusError, name: str) -> bool:
    """Whether a server's error says that the model does not take the parameter of this name."""
    told = f"{error} {error.body}"
    return bool(_REFUSED.search(told) and re.search(rf"\b{name}\b", told))


def first_choice(answer: Any) -> Any:
    """The first choice of an answer; ValueError when what came is no such answer.

    The client checks no types: a server that sends something else yields a string or an object
    without choices.
    """
    choices = getattr(answer, "choices", None)
    if not choices:
        raise ValueError(f"the server's answer has no choices: {str(answer)[:100]!r}")
    return choices[0]


def thought_beside(part: Any) -> str:
    """What a server has put beside the content as the model's thought; empty where it has not.

    ``part``: a message, or the choice of a completion.
    """
    found = [getattr(part, name, None) for name in ("reasoning_content", "reasoning")]
    return next((text for text in found if isinstance(text, str) and text.strip()), "")
