"""Sequences from a base model, written to disk as they are drawn.

A folder of samples (:func:`draw`) only grows: sample i depends on the model, the sampling
parameters, the seed and i, so the first n samples are the same however many are drawn, in one run
or several. Each sample has its own stream of random numbers (Philox, keyed by seed and index).
Batches of ``batch_size`` sequences are decoded together and written as one file at a time. On one
machine a sample is made again bit for bit by drawing its batch again (:func:`draw_batch`); another
batch size or machine rounds differently, which may tip a token near a boundary. The files are
called ``wave_*``, as in folders that were drawn before.
"""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict

from versatune.artifacts import write_atomic
from versatune.work import Piece, bars

LOOP_RATIO = 0.12
"""A text that zlib shrinks below this share of its length repeats itself."""
LOOP_BYTES = 200
"""Shorter texts are not called loops."""


class Sample(BaseModel):
    """One sequence drawn from the base model."""

    model_config = ConfigDict(frozen=True)

    index: int
    text: str
    n_tokens: int
    ended: bool
    """Whether the model ended it; otherwise the length limit did."""
    question: str = ""
    """The question, if the sequence begins with a user's turn; ``text`` holds both turns."""
    answer: str = ""
    """The answer to it; empty if the model did not finish one."""
    thought: str = ""
    """What the model thought before the answer; no part of ``text``."""

    @classmethod
    def of_turns(cls, question: str, answer: str, thought: str, **known: Any) -> Self:
        """Of a user's turn and its answer, joined as a training row's contents are for a judge."""
        text = "\n".join(filter(None, (question, answer)))
        return cls(text=text, question=question, answer=answer, thought=thought, **known)

    @property
    def flag(self) -> str:
        """``empty``, ``loop`` or nothing: why the text is no evidence."""
        if not any(c.isalnum() for c in self.text):
            return "empty"
        data = self.text.encode()
        if len(data) >= LOOP_BYTES and len(zlib.compress(data)) < LOOP_RATIO * len(data):
            return "loop"
        return ""


def stream(seed: int, index: int, n: int) -> np.ndarray:
    """The ``n`` random numbers of sample ``index``: uniform on [0, 1), shape (n,)."""
    key = np.array([seed, index], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).random(n)


class Sampler(ABC):
    """Where samples come from."""

    about: dict[str, Any]
    """Everything that samples depend on besides index and seed."""

    @property
    @abstractmethod
    def begins(self) -> str:
        """How every sequence begins, for the output."""

    @property
    def facts(self) -> dict[str, Any]:
        """What was found out while drawing, for the manifest."""
        return {}

    @abstractmethod
    def batch(self, indices: range, seed: int) -> Iterator[Sample]:
        """Draw these samples; they come in any order."""


def draw(sampler: Sampler, seed: int, size: int, n: int) -> Piece:
    """The first ``n`` samples or more, to the end of a batch of ``size``.

    A folder with fewer is continued; metadata: ``drawn``, ``seed``, ``begins``, what the samples
    depend on, and the sampler's ``facts``.
    """
    batches = -(-n // size)

    def make(folder: Path) -> dict[str, Any]:
        files = [folder / f"wave_{batch:05d}.jsonl" for batch in range(batches)]
        missing = [batch for batch, file in enumerate(files) if not file.is_file()]
        with bars.bar(len(missing) * size, "sampling", "texts") as bar:
            for batch in missing:
                lines = [s.model_dump_json() for s in draw_batch(sampler, seed, size, batch, bar)]
                write_atomic(files[batch], "\n".join(lines) + "\n")
        drawn = len(list(folder.glob("wave_*.jsonl"))) * size
        about = {"begins": sampler.begins, **sampler.about, **sampler.facts}
        return {"drawn": drawn, "seed": seed, **about}

    return Piece(
        inputs={"sampler": sampler.about, "seed": seed, "wave": size},
        make=make,
        enough=lambda ref: bool(ref.metadata["drawn"] >= batches * size),
    )


def read_samples(folder: Path) -> list[Sample]:
    """All samples of a folder, in order."""
    return [
        Sample.model_validate_json(line)
        for file in sorted(folder.glob("wave_*.jsonl"))
        for line in file.read_text(encoding="utf-8").split("\n")
        if line
    ]


def draw_batch(sampler: Sampler, seed: int, size: int, batch: int, bar: Any = None) -> list[Sample]:
    """The samples of one batch, drawn again, in order; nothing is written."""
    drawn = []
    for sample in sampler.batch(range(batch * size, (batch + 1) * size), seed):
        drawn.append(sample)
        if bar is not None:
            bar.update()
    return sorted(drawn, key=lambda s: s.index)
