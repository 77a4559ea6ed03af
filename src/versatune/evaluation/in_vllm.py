"""Tasks asked by lm-evaluation-harness's own vLLM, in this process. Importing this imports vLLM.

Conversations are encoded as with transformers; vLLM makes texts and scores.
"""

from typing import Any

from lm_eval.models.vllm_causallms import VLLM

from versatune.data.lengths import saved_token_limit
from versatune.errors import VersatuneError
from versatune.evaluation.config import EvaluateParams
from versatune.evaluation.conversations import Conversations
from versatune.evaluation.thinking import Thinking
from versatune.modeling.checkpoints import CheckpointRef, generation_config


class VllmConversations(Conversations, VLLM):
    """Loaded once for all tasks of a model; :meth:`begin` comes before each."""

    def __init__(self, checkpoint: CheckpointRef, tokenizer: Any, **settings: Any) -> None:
        super().__init__(pretrained=str(checkpoint.path), **settings)
        self.tokenizer = tokenizer
        self._checkpoint = checkpoint

    def begin(self, *, alone: bool) -> None:
        self.alone = alone
        self.asked.clear()
        self.replies.thinking = Thinking()
        self._prompts.clear()

    def generation_config(self) -> Any:
        return generation_config(self._checkpoint)

    def tok_encode(self, string: Any, *args: Any, **settings: Any) -> Any:
        """The tokens of a text, or those of each of several."""
        if isinstance(string, str):
            return super().tok_encode(string, *args, **settings)
        return [self.tok_encode(text, *args, **settings) for text in string]

    def modify_gen_kwargs(self, gen_kwargs: dict[str, Any], **others: Any) -> Any:
        """Settings of a request as vLLM calls them: answers end at the tokens of :attr:`stops`."""
        settings, until, length = VLLM.modify_gen_kwargs(gen_kwargs, **others)
        settings.pop("eos_token_id", None)
        if self.asked or self.alone:
            settings["stop_token_ids"] = self.stops
            settings["skip_special_tokens"] = not self.asked
        return settings, until, length


def load_in_vllm(
    checkpoint: CheckpointRef, tokenizer: Any, params: EvaluateParams
) -> VllmConversations:
    """The model in vLLM, with the part of the GPUs' memory that ``params.vllm`` gives it.

    Raises VersatuneError for a folder that holds only an adapter.
    """
    if not (checkpoint.path / "config.json").is_file():
        raise VersatuneError(
            f"evaluate.engine is vllm, and {checkpoint.path} holds only an adapter: use auto, or "
            "train with train.lora.merge: true."
        )
    return VllmConversations(
        checkpoint,
        tokenizer,
        dtype=params.dtype,
        max_length=params.vllm.max_model_len or saved_token_limit(checkpoint.path),
        batch_size=params.batch_size,
        seed=params.seed,
        **params.vllm.model_dump(exclude={"max_model_len"}),
    )
