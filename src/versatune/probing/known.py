"""Counts that the paper's public code ships: distributions of seven models without a probe.

Source: github.com/8023looker/VersaTune, the files of sampled and judged texts; 10,000 samples a
model, temperature 1, repetition penalty 1.1 (which distorts the distribution), one hard label
each from Qwen2.5-72B-Instruct. Samples whose label did not parse were dropped there without a
count; it is the difference to 10,000.
"""

from collections.abc import Sequence
from typing import Any

from versatune.errors import VersatuneError
from versatune.intervals import wilson

DOMAINS = ("law", "medicine", "finance", "science", "code", "other")
SAMPLED = 10_000
SOURCE = "counts shipped with the public code of VersaTune (arXiv 2411.11266)"

KNOWN = {
    "LLaMA-2-7B": (571, 866, 653, 595, 813, 6489),
    "LLaMA-2-13B": (563, 784, 664, 608, 951, 6414),
    "LLaMA-3-8B": (194, 648, 289, 748, 5552, 2558),
    "Qwen1.5-7B": (532, 813, 506, 2083, 2740, 2953),
    "Qwen2-7B": (855, 669, 347, 862, 3327, 1998),
    "Qwen2.5-7B": (299, 490, 357, 738, 5006, 1968),
    "Qwen2.5-14B": (195, 354, 358, 874, 5542, 1504),
}


def known_distribution(name: str, domains: Sequence[str]) -> dict[str, Any]:
    """The knowledge distribution of a model by name, with Wilson intervals of its counts.

    These are hard labels of one judge, uncorrected: ``raw_share`` equals ``share``.
    Raises VersatuneError when the project's domains are not the paper's six.
    """
    if set(domains) != set(DOMAINS):
        raise VersatuneError(
            f"probe.known_distribution: {name}'s counts are of the domains {', '.join(DOMAINS)}, "
            f"but this project has {', '.join(domains)}; probe the model instead (set it to null)."
        )
    counts = dict(zip(DOMAINS, KNOWN[name], strict=True))
    total = sum(counts.values())
    shares = {}
    for domain in domains:
        share = counts[domain] / total
        low, high = wilson(share, total)
        shares[domain] = {"share": share, "low": low, "high": high, "raw_share": share}
    return {
        "domains": shares,
        "n_samples": SAMPLED,
        "n_rejected": SAMPLED - total,
        "judge": "Qwen2.5-72B-Instruct, hard labels",
        "base_model": name,
        "seed": None,
        "rounds": 1,
        "source": SOURCE,
    }
