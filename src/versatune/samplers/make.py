"""The sampler that parameters ask for."""

from versatune.modeling.checkpoints import CheckpointRef
from versatune.samplers.base import Sampler
from versatune.samplers.config import SamplingParams, require_server
from versatune.samplers.local import ModelSampler
from versatune.samplers.served import ServerSampler


def make_sampler(base: CheckpointRef, params: SamplingParams, api_key: str = "") -> Sampler:
    """The sampler the parameters ask for; ``api_key`` is for a server."""
    if params.source == "server":
        require_server(params.server, "probe.sampling.server")
        return ServerSampler(params, api_key)
    return ModelSampler(base, params)
