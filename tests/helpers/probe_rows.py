"""Cleaned rows of three invented domains: what a judge can be trained on in a second."""

from pathlib import Path

import numpy as np

from versatune.artifacts import FolderRef, fingerprint
from versatune.work import WorkFolder

WORDS = {
    "law": ["court", "judge", "contract", "statute", "plaintiff", "appeal", "clause", "tort"],
    "medicine": ["dose", "drug", "patient", "fever", "heart", "tumour", "nurse", "artery"],
    "other": ["river", "poem", "bread", "holiday", "garden", "mountain", "song", "window"],
}


def sentence(rng: np.random.Generator, domain: str, purity: float = 0.8, words: int = 10) -> str:
    """Words, mostly of the domain, the rest of any."""
    pool = [word for known in WORDS.values() for word in known]
    own = WORDS[domain]
    return " ".join(
        str(rng.choice(own)) if rng.random() < purity else str(rng.choice(pool))
        for _ in range(words)
    )


def clean_rows(folder: Path, per_domain: int = 120) -> FolderRef:
    """A folder like the one ingest leaves, with this many training rows a domain."""
    rng = np.random.default_rng(0)
    texts = {
        domain: [(sentence(rng, domain), sentence(rng, domain)) for _ in range(per_domain)]
        for domain in WORDS
    }
    return cleaned(folder, texts)


def cleaned(folder: Path, texts: dict[str, list[tuple[str, str]]]) -> FolderRef:
    """A folder like the one ingest leaves; ``texts``: domain -> what user and assistant say."""
    import datasets

    work = WorkFolder.open(folder, {"made": "up", "texts": fingerprint(texts)})
    if work.complete:
        return work.ref
    rows: dict[str, list] = {"domain": [], "messages": []}
    for number, pairs in enumerate(texts.values()):
        for question, answer in pairs:
            rows["domain"].append(number)
            rows["messages"].append(
                [
                    {"role": "user", "content": question},
                    {"role": "assistant", "content": answer},
                ]
            )
    features = datasets.Features(
        domain=datasets.Value("int32"),
        messages=datasets.List(
            {"role": datasets.Value("string"), "content": datasets.Value("string")}
        ),
    )
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(work.path / "train"))
    counts = {domain: len(pairs) for domain, pairs in texts.items()}
    return work.seal(
        domains=list(texts),
        rows={"train": counts, "steering": {}, "report": {}},
        only_own=[domain for domain, pairs in texts.items() if not pairs],
    )
