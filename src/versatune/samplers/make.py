"""The sampler that parameters ask for."""

from dataclasses import replace

from versatune.modeling.checkpoints import CheckpointRef, load_tokenizer
from versatune.samplers.base import Sampler
from versatune.samplers.config import SamplingParams
from versatune.samplers.local import ModelSampler, asked_turn
from versatune.samplers.served import ServerSampler


def make_sampler(base: CheckpointRef, params: SamplingParams, api_key: str = "") -> Sampler:
    """The sampler the parameters ask for; ``api_key`` is for a server."""
    if params.source == "server":
        turn = None
        if params.start in ("user", "auto"):
            tokenizer = load_tokenizer(base)
            turn = asked_turn(tokenizer, params.start)
            if turn is not None:
                # Servers put the begin token before a prompt themselves, and a blank at a prompt's
                # end is none that words are written with.
                opening = turn.opening.removeprefix(tokenizer.bos_token or "").rstrip(" ")
                turn = replace(turn, opening=opening, handover=turn.handover.rstrip(" "))
        return ServerSampler(params, api_key, turn)
    return ModelSampler(base, params)
