"""Parameters of drawing sequences from a model."""

import re
from typing import Literal

from pydantic import Field, field_validator

from versatune.modeling.engines import Dtype, Engine, VllmParams
from versatune.params import Params


class ServerParams(Params):
    """How to reach an OpenAI-compatible server."""

    url: str = "http://127.0.0.1:8000/v1"
    """Base address, with ``/v1``."""
    model: str = ""
    """The model's name as the server knows it."""
    concurrency: int = Field(default=8, ge=1, le=512)
    """Concurrent requests."""
    requests_per_minute: float = Field(default=0.0, ge=0)
    """Upper limit on requests started a minute, retries included; 0: none."""
    timeout: float = Field(default=60.0, gt=0)
    """Seconds until an unanswered request is cancelled (and tried again)."""
    max_retries: int = Field(default=6, ge=0)
    """Retries after a timeout, a broken connection, 408, 409, 429 or 5xx, with exponential waits
    and jitter; a Retry-After of the server is honoured."""

    @field_validator("url")
    @classmethod
    def _has_scheme(cls, url: str) -> str:
        if not re.match(r"https?://[^/]", url):
            raise ValueError(f"an address begins with http:// or https://, got {url!r}")
        return url

    @property
    def place(self) -> str:
        """The address without a name and password in it, for messages and records."""
        return re.sub(r"(?<=://)[^/@]+@", "", self.url)


class SamplingParams(Params):
    """How sequences are drawn from the base model."""

    source: Literal["model", "server"] = "model"
    """``model``: the base model's folder; ``server``: a served model (see ``server``)."""
    server: ServerParams = ServerParams()
    """Used when ``source`` is ``server``: its /completions is asked."""
    prompt: str = ""
    """The prompt that a server gets. Servers put the begin token before an empty prompt if the
    tokenizer has one; name the token here if yours does not."""
    start: str | None = None
    """The start of every sequence. ``bos`` (as null): the tokenizer's begin token, else the special
    tokens it starts an empty text with, else its end token (the separator of its training).
    ``user``: what the chat template writes before a user's turn; the model then writes what it is
    asked, and its answer. ``auto``: ``user`` where the tokenizer came with a chat template of its
    own, else ``bos``. Else a token by its text. A server is asked from ``prompt`` on unless this is
    ``user`` or ``auto``."""
    max_new_tokens: int = Field(default=128, ge=1)
    """Length limit of a sequence."""
    temperature: float = Field(default=1.0, gt=0)
    """1 samples the model's own distribution; anything else distorts the estimate."""
    top_k: int = Field(default=0, ge=0)
    """Keep the k likeliest tokens; 0: all."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Keep the likeliest tokens up to this mass; 1: all."""
    repetition_penalty: float = Field(default=1.0, gt=0)
    """1: none. The paper's code used 1.1, which changes the model's distribution."""
    batch_size: int = Field(default=256, ge=1)
    """Sequences in a batch. A killed probe loses at most the batches in progress."""
    dtype: Dtype = "auto"
    """torch dtype the model is loaded in; ``auto``: the one it was saved in."""
    engine: Engine = "auto"
    """What runs the model (``source: model``). ``dynamic``: this project's loop, with a growing
    cache from which finished rows are dropped. ``static``: transformers' ``generate`` with a cache
    of fixed size, whose step it compiles on a GPU. Both draw the same tokens. ``vllm``: vLLM in
    this process, if it is installed; it draws with random numbers of its own. ``auto``: ``dynamic``
    on a CPU, where it was measured to be faster; on a GPU ``dynamic`` or ``static``, by the speed
    of the first three batches, which is in the samples' manifest. Never ``vllm``, which draws
    different samples."""
    vllm: VllmParams = VllmParams()
    """Used when ``engine`` is ``vllm``."""

    @field_validator("vllm")
    @classmethod
    def _one_copy(cls, vllm: VllmParams) -> VllmParams:
        if vllm.data_parallel_size > 1:
            raise ValueError("`data_parallel_size` is of `evaluate.vllm`; samples have one copy")
        if vllm.max_model_len is not None:
            raise ValueError("`max_model_len` is of `evaluate.vllm`; samples: `max_new_tokens`")
        return vllm
