"""Drawing by vLLM in this process.

vLLM draws with generators of its own. Each sample has a seed that depends on the probe's seed and
its index only, so that it does not depend on how many are drawn.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from versatune.data.user_turn import UserTurn
from versatune.errors import VersatuneError
from versatune.modeling.engines import VllmParams, without_vllm
from versatune.samplers import config
from versatune.samplers.decoding import Batch, Drawn


class VllmDecoder:
    """Draws from a checkpoint's folder; vLLM loads it, once, when this is made."""

    def __init__(
        self,
        folder: Path,
        start: list[int],
        limit: int,
        dtype: str,
        params: VllmParams,
        turn: UserTurn | None = None,
    ) -> None:
        """``limit``: tokens behind ``start``. Raises VersatuneError without vLLM."""
        if problem := without_vllm("vllm"):
            raise VersatuneError(f"probe.sampling.engine: {problem}.")
        from vllm import LLM

        self.start, self.turn = start, turn
        self.model = LLM(
            model=str(folder),
            dtype=dtype,
            max_model_len=len(start) + limit,
            tensor_parallel_size=params.tensor_parallel_size,
            gpu_memory_utilization=params.gpu_memory_utilization,
            trust_remote_code=False,
        )

    def sample(self, batch: Batch) -> Iterator[Drawn]:
        """As :meth:`versatune.samplers.decoding.Decoder.sample`; the first numbers are seeds."""
        turns, params, stops = batch.turns, batch.params, sorted(batch.ends)
        rows, limit = batch.uniforms.shape
        seeds = (batch.uniforms[:, : 1 if turns is None else 2] * 2**31).astype(int)
        if turns is None:
            drawn = self._ask([self.start] * rows, seeds[:, 0], [limit] * rows, params, stops)
            for row, tokens in enumerate(drawn):
                ended = bool(tokens) and tokens[-1] in batch.ends
                yield row, tokens[:-1] if ended else tokens, ended
            return
        assert self.turn is not None
        marks = sorted({*stops, *([] if self.turn.end_id is None else [self.turn.end_id])})
        words = [self.turn.end] if self.turn.end_id is None and self.turn.end else []
        asked = self._ask([self.start] * rows, seeds[:, 0], [limit] * rows, params, marks, words)
        before = [turns.follow(row, tokens)[:limit] for row, tokens in enumerate(asked)]
        left = [r for r in range(rows) if turns.answers(r) and len(before[r]) < limit]
        answers = self._ask(
            [self.start + before[r] for r in left],
            seeds[left, -1],
            [limit - len(before[r]) for r in left],
            params,
            stops,
        )
        for row, tokens in zip(left, answers, strict=True):
            before[row] += turns.follow(row, tokens)
        for row in range(rows):
            yield row, before[row], turns.ended(row)

    def _ask(
        self,
        prompts: list[list[int]],
        seeds: Any,
        limits: list[int],
        params: config.SamplingParams,
        stops: list[int],
        words: list[str] | None = None,
    ) -> list[list[int]]:
        """What vLLM writes behind each prompt, the token that stopped it included."""
        from vllm import SamplingParams, TokensPrompt

        settings = [
            SamplingParams(
                temperature=params.temperature,
                top_k=params.top_k or -1,
                top_p=params.top_p,
                repetition_penalty=params.repetition_penalty,
                max_tokens=limit,
                seed=int(seed),
                stop_token_ids=stops,
                stop=words or None,
                ignore_eos=True,  # the ends are those of stop_token_ids
                detokenize=bool(words),
            )
            for seed, limit in zip(seeds, limits, strict=True)
        ]
        found = self.model.generate(
            [TokensPrompt(prompt_token_ids=prompt) for prompt in prompts],
            sampling_params=settings,
            use_tqdm=False,
        )
        return [list(answer.outputs[0].token_ids) for answer in found]
