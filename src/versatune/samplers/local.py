"""Sequences from a checkpoint on this machine."""

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from versatune.data.answers import stop_tokens
from versatune.data.begin import own_begin_tokens
from versatune.data.lengths import saved_token_limit, token_limit
from versatune.data.marks import control_ids
from versatune.data.user_turn import UserTurn, user_turn
from versatune.errors import VersatuneError
from versatune.modeling.checkpoints import (
    PLAIN_CHAT_TEMPLATE,
    CheckpointRef,
    generation_config,
    load_tokenizer,
)
from versatune.modeling.engines import takes_static_cache
from versatune.samplers.base import Sample, Sampler, stream
from versatune.samplers.config import SamplingParams
from versatune.samplers.turn_taking import Conversations

DRAWING = 3
"""Raised when the same model would write other texts, so that kept samples are not used."""


class ModelSampler(Sampler):
    """Draws from a checkpoint on this machine; the model is loaded at the first batch."""

    def __init__(self, base: CheckpointRef, params: SamplingParams) -> None:
        self.base, self.params = base, params
        others = {"server", "prompt", "engine", "vllm"}
        drawing = params.model_dump(mode="json", exclude=others)
        self.about = {"model": base.fingerprint, "drawing": DRAWING, **drawing}
        if params.engine == "vllm":  # the other engines draw the same tokens
            self.about["engine"] = params.engine
        self._decoder: Any = None

    @functools.cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(self.base)

    @functools.cached_property
    def turn(self) -> UserTurn | None:
        """The user's turn that sequences begin with, when they are to."""
        return asked_turn(self.tokenizer, self.params.start)

    @functools.cached_property
    def start(self) -> list[int]:
        if self.turn is not None:
            return self.turn.opening_ids
        return start_tokens(self.tokenizer, self.params.start)

    @property
    def begins(self) -> str:
        return "".join(self.tokenizer.convert_ids_to_tokens(self.start))

    def batch(self, indices: range, seed: int) -> Iterator[Sample]:
        from versatune.samplers.decoding import Batch

        limit = self.params.max_new_tokens
        decoder = self._decoder or self._load()
        uniforms = np.stack([stream(seed, i, limit) for i in indices])
        turns = None
        if self.turn is not None:
            turns = Conversations(
                self.turn, self._ends, self._decode, len(indices), self.tokenizer.decode
            )
        for row, tokens, ended in decoder.sample(Batch(uniforms, self._ends, self.params, turns)):
            index = indices[row]
            if turns is None:
                text = self._decode(tokens)
                yield Sample(index=index, text=text, n_tokens=len(tokens), ended=ended)
            else:
                n = turns.n_tokens(row)
                yield Sample.of_turns(*turns.parts(row), index=index, n_tokens=n, ended=ended)

    def _decode(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode([t for t in tokens if t not in self._control]))

    @functools.cached_property
    def _control(self) -> frozenset[int]:
        return control_ids(self.tokenizer)

    def _load(self) -> Any:
        """The decoder of the engine that was asked for, with the model in it."""
        from versatune.modeling.room import load_checked

        if self.params.engine == "vllm":
            model, limit = None, saved_token_limit(self.base.path)
            config = generation_config(self.base)
        else:
            model = load_checked(self.base, self.params.dtype, "probe.sampling")
            limit, config = token_limit(model.config), model.generation_config
        wanted = self.params.max_new_tokens + len(self.start)
        if limit is not None and wanted > limit:
            raise VersatuneError(
                f"probe.sampling.max_new_tokens: {wanted} tokens with the start, but "
                f"{self.base.name} reads {limit} at most."
            )
        ends = config.eos_token_id if config else None
        ends = ends if isinstance(ends, list) else [ends]
        if self.turn is not None:  # a model may end its answers otherwise than its documents
            ends = stop_tokens(self.tokenizer, [e for e in ends if e is not None])
        self._ends = {e for e in [*ends, self.tokenizer.eos_token_id] if e is not None}
        self._decoder = self._in_vllm() if model is None else self._in_transformers(model)
        return self._decoder

    def _in_transformers(self, model: Any) -> Any:
        """`auto`: on a GPU what is measured to be faster; on a CPU, which compiles nothing,
        `dynamic`."""
        from versatune.samplers.decoding import Decoder
        from versatune.samplers.faster import faster_engine
        from versatune.samplers.static import StaticDecoder

        engine = self.params.engine
        if engine == "static" and not takes_static_cache(model):
            raise VersatuneError(
                f"probe.sampling.engine is static, and {type(model).__name__} can't generate from "
                "a cache of fixed size: use auto."
            )
        make: Any = StaticDecoder if engine == "static" else Decoder
        if engine == "auto" and model.device.type == "cuda" and takes_static_cache(model):
            make = faster_engine
        return make(model, self.start, self.params.max_new_tokens)

    @property
    def facts(self) -> dict[str, Any]:
        measured = getattr(self._decoder, "tokens_per_second", {})
        return {"tokens_per_second": dict(measured)} if measured else {}

    def _in_vllm(self) -> Any:
        from versatune.samplers.in_vllm import VllmDecoder

        limit, dtype = self.params.max_new_tokens, self.params.dtype
        return VllmDecoder(self.base.path, self.start, limit, dtype, self.params.vllm, self.turn)


def asked_turn(tokenizer: Any, start: str | None) -> UserTurn | None:
    """The user's turn to begin with, when ``probe.sampling.start`` asks for one."""
    own = tokenizer.chat_template not in (None, PLAIN_CHAT_TEMPLATE)
    return user_turn(tokenizer) if start == "user" or (start == "auto" and own) else None


def start_tokens(tokenizer: Any, start: str | None) -> list[int]:
    """The tokens every sequence begins with; see ``probe.sampling.start``."""
    if start not in (None, "bos", "auto"):
        token = tokenizer.get_vocab().get(start)
        if token is None:
            raise VersatuneError(
                f"probe.sampling.start: {start!r} is no token of the base model's tokenizer."
            )
        return [token]
    if own := own_begin_tokens(tokenizer):
        return own
    begin = tokenizer.bos_token_id
    return [tokenizer.eos_token_id if begin is None else begin]
