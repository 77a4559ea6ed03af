"""Cleaned rows of three invented domains: what a judge can be trained on in a second."""

from pathlib import Path

import numpy as np

from versatune.artifacts import FolderRef, WorkFolder

WORDS = {
    "law": ["court", "judge", "contract", "statute", "plaintiff", "appeal", "clause", "tort"],
    "medicine": ["dose", "drug", "patient", "fever", "heart", "tumour", "nurse", "artery"],
    "other": ["river", "poem", "bread", "holiday", "garden", "mountain", "song", "window"],
}


def sentence(rng: np.random.Generator, domain: str, purity: float = 0.8) -> str:
    """Ten words, mostly of the domain, the rest of any."""
    pool = [w for words in WORDS.values() for w in words]
    own = WORDS[domain]
    return " ".join(
        str(rng.choice(own)) if rng.random() < purity else str(rng.choice(pool)) for _ in range(10)
    )


def clean_rows(folder: Path, per_domain: int = 120) -> FolderRef:
    """A folder like the one ingest leaves, with this many training rows a domain."""
    import datasets

    rng = np.random.default_rng(0)
    work = WorkFolder.open(folder, {"made": "up"})
    rows: dict[str, list] = {"domain": [], "messages": []}
    for number, domain in enumerate(WORDS):
        for _ in range(per_domain):
            rows["domain"].append(number)
            rows["messages"].append(
                [
                    {"role": "user", "content": sentence(rng, domain)},
                    {"role": "assistant", "content": sentence(rng, domain)},
                ]
            )
    features = datasets.Features(
        domain=datasets.Value("int32"),
        messages=datasets.List(
            {"role": datasets.Value("string"), "content": datasets.Value("string")}
        ),
    )
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(work.path / "train"))
    return work.seal(
        domains=list(WORDS), rows={"train": dict.fromkeys(WORDS, per_domain), "validation": {}}
    )
