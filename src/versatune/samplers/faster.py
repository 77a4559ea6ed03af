"""The faster of two engines that draw the same tokens, measured on the batches themselves.

Nothing is drawn twice: the first full batch comes by the growing cache, the second by the cache of
fixed size, which compiles its step, the third by it again; then the faster of the first and the
third goes on. A batch of another size would be compiled anew, so it comes by the growing cache.
"""

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from versatune.samplers.decoding import Batch, Decoder, Drawn
from versatune.samplers.static import StaticDecoder

logger = logging.getLogger(__name__)


class Engine(Protocol):
    """Draws a batch: see :meth:`versatune.samplers.decoding.Decoder.sample`."""

    def sample(self, batch: Batch) -> Iterator[Drawn]: ...


class FasterEngine:
    """Draws by either engine until both are measured, then by the faster one."""

    def __init__(
        self,
        dynamic: Engine,
        static: Engine,
        prepare: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``prepare``: called with the engine's name before it draws."""
        self._engines, self._clock = {"dynamic": dynamic, "static": static}, clock
        self._prepare = prepare
        self._rows: int | None = None
        self._plan = ["dynamic", "static", "static"]
        self.tokens_per_second: dict[str, float] = {}
        """The speed of each engine that was measured."""

    @property
    def chosen(self) -> str | None:
        """The faster engine, once both are measured."""
        if self._plan:
            return None
        return max(self.tokens_per_second, key=self.tokens_per_second.__getitem__)

    def sample(self, batch: Batch) -> Iterator[Drawn]:
        """As :meth:`Engine.sample`."""
        rows = len(batch.uniforms)
        self._rows = self._rows or rows
        if rows != self._rows:
            self._prepare("dynamic")
            yield from self._engines["dynamic"].sample(batch)
            return
        name = self.chosen or self._plan[0]
        self._prepare(name)
        began, tokens = self._clock(), 0
        for row in self._engines[name].sample(batch):
            tokens += len(row[1])
            yield row
        if not self._plan:
            return
        self._plan.pop(0)
        # The second of `static` stays: nothing is compiled.
        self.tokens_per_second[name] = tokens / max(self._clock() - began, 1e-9)
        if not self._plan:
            told = ", ".join(f"{n} {v:,.0f}" for n, v in self.tokens_per_second.items())
            logger.info("probe.sampling.engine: %s (tokens/s: %s).", self.chosen, told)


def faster_engine(
    model: Any, start: list[int], limit: int, clock: Callable[[], float] = time.monotonic
) -> FasterEngine:
    """The growing cache and the one of fixed size, in turns on one model.

    Each has its own attention, which the model is given before that engine draws.
    """
    attention = {"static": model.config._attn_implementation}
    dynamic = Decoder(model, start, limit)
    attention["dynamic"] = model.config._attn_implementation

    def prepare(name: str) -> None:
        if model.config._attn_implementation != attention[name]:
            model.set_attn_implementation(attention[name])

    return FasterEngine(dynamic, StaticDecoder(model, start, limit), prepare, clock)
