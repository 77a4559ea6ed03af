"""How often the probe's 95 % intervals hold the truth, in simulated worlds.

    python -m tests.benchmarks.bench_coverage [--worlds 60 --replicates 200]
    python -m tests.benchmarks.bench_coverage --audits --worlds 240 --replicates 1000
    python -m tests.benchmarks.bench_coverage --small --worlds 300 --replicates 300

A row is a judge, a number of labelled rows a domain and a number of texts, over worlds of three
share vectors: coverage over all domains without a correction, with ``pacc`` and with ``acc``, the
coverage of ``pacc`` for shares of 5 % and less, and how far its intervals reach. Then sampling that
stops by the rule, and ``em`` beside ``pacc`` where it may be used: with a judge that is calibrated
for the texts. With ``--audits``, instead, audits of a judge that errs on the texts alone: it leans
towards one domain, or is sure that the smallest domain's texts belong to that one. A reader who is
right audits it, or a judge that errs itself. With ``--small``: a domain of 1 % that the judge loses
30 % of, with few labelled rows.
"""

import argparse
import itertools

import numpy as np

from tests.helpers.probe_worlds import (
    LEAKS,
    holds,
    judged,
    labelled_rows,
    small_domain,
    worlds,
)
from tests.helpers.probe_worlds import SMALL as SMALL_SHARES
from versatune.probing.estimate import Audit, estimate_shares, narrow_enough
from versatune.probing.judges.base import Labelled
from versatune.probing.quantification import audit_chances

SHARPNESS = (1.0, 2.0, 3.0, 4.5)
CORRECTIONS = ("none", "pacc", "acc")
SMALL = 0.05


def cell(sharpness: float, per_domain: int, n: int, args: argparse.Namespace) -> str:
    """One row of the table."""
    hits: dict[str, list[np.ndarray]] = {how: [] for how in CORRECTIONS}
    small, reach, right = [], [], []
    for rng, shares in worlds(args.worlds):
        rows = labelled_rows(rng, sharpness, per_domain)
        texts = judged(rng, rng.choice(6, n, p=shares), sharpness)
        right.append((rows.probabilities.argmax(axis=1) == rows.labels).mean())
        for how in CORRECTIONS:
            found = estimate_shares(texts, rows, how, args.replicates, 0)
            hits[how].append(holds(found, shares))
            if how == "pacc":
                small.append(holds(found, shares)[shares <= SMALL])
                reach.append(found.half_widths.mean())
    covered = " | ".join(f"{np.mean(hits[how]):.3f}" for how in CORRECTIONS)
    return (
        f"| {np.mean(right):.0%} | {per_domain} | {n} | {covered} | "
        f"{np.mean(np.concatenate(small)):.3f} | {np.mean(reach):.3f} |"
    )


def small(leak: str, per_domain: int, how: str, args: argparse.Namespace) -> str:
    """Coverage over all domains and of the smallest; how far the smallest's interval reaches."""
    hits, reach = [], []
    for seed in range(args.worlds):
        rng = np.random.default_rng(seed)
        texts, rows = small_domain(rng, LEAKS[leak], 2000, per_domain, 1 if how == "acc" else 0.8)
        found = estimate_shares(texts, rows, how, args.replicates, 0)
        hits.append(holds(found, SMALL_SHARES))
        reach.append(found.half_widths[2])
    smallest = np.mean(np.array(hits)[:, 2])
    covered = f"{np.mean(hits):.3f} | {smallest:.3f}"
    return f"| {leak} | {per_domain} | {how} | {covered} | {np.mean(reach):.3f} |"


def stopped(half_width: float, args: argparse.Namespace) -> str:
    """Coverage of intervals whose number of texts they chose themselves."""
    hits, numbers = [], []
    for rng, shares in worlds(args.worlds):
        rows = labelled_rows(rng, 3.0, 300)
        texts = judged(rng, rng.choice(6, 5120, p=shares), 3.0)
        for n in range(512, 5121, 512):
            found = estimate_shares(texts[:n], rows, "pacc", args.replicates, 0)
            if narrow_enough(found, n, half_width):
                break
        hits.append(holds(found, shares))
        numbers.append(n)
    after = f"{min(numbers)} to {max(numbers)} texts"
    return f"stopped at +-{half_width}: {np.mean(hits):.3f}, after {after}"


def calibrated(args: argparse.Namespace) -> str:
    """``em`` beside ``pacc`` where the judge's probabilities are right (``judged`` at 2.0)."""
    said = []
    for how in ("pacc", "em"):
        hits, reach = [], []
        for rng, shares in worlds(args.worlds // 5):
            rows = labelled_rows(rng, 2.0, 60)
            texts = judged(rng, rng.choice(6, 1000, p=shares), 2.0)
            found = estimate_shares(texts, rows, how, args.replicates, 0)
            hits.append(holds(found, shares))
            reach.append(found.half_widths.mean())
        said.append(f"{how} reaches {np.mean(reach):.3f}, holds the truth in {np.mean(hits):.3f}")
    return f"calibrated judge, 60 rows a domain, 1000 texts: {'; '.join(said)}"


def audited(lost: bool, reader: bool, n: int, args: argparse.Namespace) -> str:
    """One row of the table of audits: coverage, and for shares of 5 % and less (the lost one)."""
    hits, small, reach, off, before = [], [], [], [], []
    for rng, shares in worlds(args.worlds):
        truth, smallest = rng.choice(6, 4096, p=shares), int(shares.argmin())
        sharpness = 4.5 if lost else 3.0
        p = judged(rng, truth, sharpness)
        if lost:
            p[truth == smallest] = judged(rng, np.full((truth == smallest).sum(), 5), sharpness)
        else:
            p[:, 5] += 0.15
            p /= p.sum(axis=1, keepdims=True)
        second = np.eye(6)[truth] if reader else judged(rng, truth, 3.0)
        rows = Labelled.oracle(6) if reader else labelled_rows(rng, 3.0, 100)
        chances = audit_chances(p, n)
        seen = np.where((rng.random(len(p)) < chances)[:, None], second, np.nan)
        own = labelled_rows(rng, sharpness, 100)
        audit = Audit(seen, chances, rows)
        found = estimate_shares(p, own, "pacc", args.replicates, 0, audit=audit)
        alone = estimate_shares(p, own, "pacc", 2, 0)
        held = holds(found, shares)
        hits.append(held)
        small.append(held[[smallest]] if lost else held[shares <= SMALL])
        reach.append(found.half_widths.mean())
        off.append(np.abs(found.share - shares).sum() / 2)
        before.append(np.abs(alone.share - shares).sum() / 2)
    judge, second_judge = ("loses a domain" if lost else "leans"), ("reader" if reader else "judge")
    return (
        f"| {judge} | a {second_judge} | {n} | "
        f"{np.mean(before):.3f} | {np.mean(off):.3f} | {np.mean(hits):.3f} | "
        f"{np.mean(np.concatenate(small)):.3f} | {np.mean(reach):.3f} |"
    )


def audits(args: argparse.Namespace) -> None:
    """The table of audits."""
    print(
        "| judge | audited by | texts audited | pacc off by | audit off by | coverage | "
        "small, or lost, shares | reach |"
    )
    print("|" + " --- |" * 8)
    for lost, reader, n in itertools.product((False, True), (True, False), (100, 200, 400)):
        print(audited(lost, reader, n, args), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=60)
    parser.add_argument("--replicates", type=int, default=200)
    parser.add_argument("--audits", action="store_true", help="audits alone")
    parser.add_argument("--small", action="store_true", help="a small domain alone")
    args = parser.parse_args()
    if args.small:
        print("| judge | rows a domain | correction | coverage | smallest | reach |")
        print("| --- | --- | --- | --- | --- | --- |")
        for each in itertools.product(LEAKS, (50, 400), ("acc", "pacc")):
            print(small(*each, args), flush=True)
        return
    if args.audits:
        return audits(args)
    print(
        "| judge right | rows a domain | texts | none | pacc | acc | pacc, small shares | reach |"
    )
    print("|" + " --- |" * 8)
    for sharpness, per_domain, n in itertools.product(SHARPNESS, (60, 400), (500, 2000)):
        print(cell(sharpness, per_domain, n, args), flush=True)
    for half_width in (0.05, 0.035, 0.025):
        print(stopped(half_width, args), flush=True)
    print(calibrated(args))


if __name__ == "__main__":
    main()
