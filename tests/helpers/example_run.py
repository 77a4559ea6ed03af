"""Plausible artifacts of a whole run, after the contracts, for any number of domains."""

from typing import Any

import numpy as np
import pandas as pd

SIX = ("law", "medicine", "finance", "science", "code", "other")
TEXTS = (
    "The court held that the contract was void for want of consideration, and the appeal was",
    "A dose of 5 mg of the drug lowers blood pressure within two hours.\n\nSide effects are rare.",
    "The bond pays a coupon twice a year; its price falls when rates rise.",
    "Carbon has the atomic number 6. Its isotopes are used to date organic remains. " * 2,
    "def add(a, b):\n    return a + b\n\nprint(add(1, 2))",
    "Paris lies on the Seine, and so does Rouen. The the the the the the",
)


def artifacts(domains: tuple[str, ...] = SIX, rounds: int = 8, seed: int = 0) -> dict[str, Any]:
    """Artifacts by catalog name. Domain 0 gets worse, domain 3 hardly changes, others improve."""
    rng = np.random.default_rng(seed)
    k = len(domains)
    base = rng.uniform(1.2, 3.4, k)
    gain = np.where(np.arange(k) == 0, 1.05, np.where(np.arange(k) == 3, 0.996, 0.78))
    gain = gain * rng.uniform(0.98, 1.02, k)
    gain[3 % k] = 0.996
    reference = base * np.minimum(gain, 1) * 0.9
    weights = rng.dirichlet(np.full(k, 4.0))
    start = weights.copy()
    history = []
    for r in range(rounds + 1):
        loss = base * (gain + (1 - gain) * np.exp(-0.7 * r))
        gamma = np.maximum((loss - reference) / loss, 0)
        for j, domain in enumerate(domains):
            realised = weights[j] + rng.normal(0, 0.004, 3) if r else [None] * 3
            history.append(
                {
                    "round": r,
                    "step": 25 * r,
                    "domain": domain,
                    "weight": weights[j],
                    "realised_share_rows": realised[0],
                    "realised_share_tokens": realised[1],
                    "realised_share_supervised_tokens": realised[2],
                    "epochs_seen": 0.2 * r,
                    "train_loss": loss[j] * 0.97 if r else None,
                    "learnable_potential": gamma[j] if r else None,
                    "forgetting_degree": max(loss[j] / base[j] - 1, 0) if r else None,
                    "validation_loss": loss[j] + rng.normal(0, 0.005),
                    "validation_stderr": 0.02,
                    "seconds": 4.0,
                    "tokens_per_second": 5000.0 if r else 0.0,
                    "reason": "shares follow the potential" if r else "the base model",
                }
            )
        if r:
            weights = weights * (1 + 0.6 * gamma)
            weights /= weights.sum()
    evaluation = _evaluation(domains, base, base * gain, rng)
    return {
        "mixture_history": pd.DataFrame(history),
        "initial_mixture": {
            "strategy": "constant",
            "unit": "tokens",
            "weights": dict(zip(domains, start.tolist(), strict=True)),
        },
        "reference_losses": {
            "mode": "measure",
            "rows_per_domain": 64,
            "domains": {
                d: {"nats_per_token": float(reference[j]), "bits_per_byte": 0.9, "step": 40}
                for j, d in enumerate(domains)
            },
        },
        "forecast": _forecast(domains, base, base * gain),
        "evaluation": evaluation,
        "forgetting": _forgetting(evaluation),
        "knowledge_distribution": _knowledge(domains, start, rng),
        "judged_samples": _samples(domains, rng),
        "ingest_report": _ingest(domains, rng),
        "training_summary": {
            "steps": 25 * rounds,
            "rounds": rounds,
            "ended": None,
            "device": "CPU, 1 thread",
            "peak_memory_bytes": 3 * 2**30,
        },
        "changed_items": _changed(domains),
        "drift": pd.DataFrame(
            {
                "domain": domains,
                "drift": [0.1 * (i + 1) for i in range(len(domains))],
                "stderr": 0.01,
                "low": [0.1 * (i + 1) - 0.02 for i in range(len(domains))],
                "high": [0.1 * (i + 1) + 0.02 for i in range(len(domains))],
                "n": 40,
                "tokens": 900,
                "trained_on": [i == 0 for i in range(len(domains))],
            }
        ),
        "own_texts_report": {
            "samples": 512,
            "rejected": {"too_short": 17, "unsure": 9},
            "domains": {
                name: {
                    "trained_on": i == 0,
                    "own": {"train": 61, "steering": 13, "report": 12},
                    "rejected": {"too_short": 7} if i == 0 else {},
                }
                for i, name in enumerate(domains)
            },
        },
        "answers": pd.DataFrame(
            {
                "domain": domains,
                "item": "report:0",
                "prompt": [f"What is {d}?" for d in domains],
                "truth": "what it is",
                "base": "",
                "tuned": "what it is",
            }
        ),
        "sample_summary": {
            "shares": dict(zip(domains, (start * 0.9 + 0.1 / k).tolist(), strict=True))
        },
        "base_model": {
            "name": "pretrained on the sample",
            "path": "data/06_models/base",
            "fingerprint": "0123456789abcdef",
        },
    }


def _forecast(domains: tuple[str, ...], base: np.ndarray, final: np.ndarray) -> dict[str, Any]:
    """What came is what was forecast, but for domain 1, which ends far below its interval."""
    k = len(domains)
    ends = np.where(np.arange(k) == 1, 1.2 * final, final)

    def entry(better: float) -> dict[str, Any]:
        mean = float(ends.mean()) * (1 - better)
        return {
            "objective": mean,
            "objective_low": mean - 0.05,
            "objective_high": mean + 0.05,
            "gain": better,
            "gain_low": better - 0.002,
            "gain_high": better + 0.002,
            "above_tolerance": [domains[0]],
            "domains": {
                d: {
                    "weight": 1 / k,
                    "loss": float(ends[j]),
                    "low": float(ends[j]) - 0.04,
                    "high": float(ends[j]) + 0.04,
                    "passes": 1.5 + j,
                }
                for j, d in enumerate(domains)
            },
        }

    gains = {"uniform": 0.0, "proportional": -0.01, "foster": 0.0, "best": 0.004}
    return {
        "objective": "mean",
        "learning": 100.0,
        "headroom": {"gain": 0.004, "low": 0.002, "high": 0.006},
        "advice": "A mix can gain 0.4 % (0.2 to 0.6 %) over equal shares at most: take uniform.",
        "strategies": {name: entry(gain) for name, gain in gains.items()},
        "strategy": "foster",
        "targets": [],
        "missing": None,
        "remedy": None,
        "ends_early": None,
        "base": dict(zip(domains, base.tolist(), strict=True)),
        "tolerance_broken": [domains[0]],
        "training": {
            "steps": 200,
            "tokens": 80_000,
            "supervised_tokens": 40_000,
            "seconds": 40.0,
            "tokens_per_second": 2_000.0,
            "measured_on": "the reference runs",
            "flops": 1e12,
            "memory": {"weights": 2**30, "logits": 2**20},
            "disk": 3 * 2**30,
            "device_bytes": 16 * 2**30,
        },
        "references_seconds": 4.0,
        "warnings": [],
        "made_for": {"rounds": 8, "seed": 0},
    }


def _evaluation(
    domains: tuple[str, ...], base: np.ndarray, final: np.ndarray, rng: np.random.Generator
) -> pd.DataFrame:
    rows = []
    for j, domain in enumerate(domains):
        accuracy = rng.uniform(0.25, 0.4)
        for model, loss, acc in (
            ("base", base[j], accuracy),
            ("tuned", final[j], accuracy + (-0.03 if j == 0 else 0.16)),
        ):
            error = (acc * (1 - acc) / 150) ** 0.5
            for task, metric, value, stderr, n in (
                ("held_out", "nats_per_token", loss, 0.012 * base[j], 240),
                ("held_out", "perplexity", float(np.exp(loss)), 0.02, 240),
                (f"{domain}_choice", "acc", acc, error, 150),
                (f"{domain}_choice", "acc_norm", acc + 0.01, error, 150),
            ):
                rows.append(
                    {
                        "model": model,
                        "domain": domain,
                        "task": task,
                        "metric": metric,
                        "value": value,
                        "stderr": stderr,
                        "low": value - 1.96 * stderr,
                        "high": value + 1.96 * stderr,
                        "n": n,
                        "task_version": "1",
                    }
                )
    return pd.DataFrame(rows)


def _forgetting(evaluation: pd.DataFrame) -> pd.DataFrame:
    rows = []
    keys = ["domain", "task", "metric"]
    models = [evaluation[evaluation["model"] == m].set_index(keys) for m in ("base", "tuned")]
    for key in models[0].index:
        base, tuned = (m.loc[key] for m in models)
        change = tuned["value"] - base["value"]
        half = 0.03 * base["value"] if key[2] in ("nats_per_token", "perplexity") else 0.09
        low, high = change - half, change + half
        better = change < 0 if key[2] in ("nats_per_token", "perplexity") else change > 0
        sure = low > 0 or high < 0
        wrong = None if key[1] == "held_out" else 0.06
        rows.append(
            {
                **dict(zip(keys, key, strict=True)),
                "base": base["value"],
                "tuned": tuned["value"],
                "change": change,
                "low": low,
                "high": high,
                "relative": change / base["value"],
                "verdict": ("better" if better else "worse") if sure else "not distinguishable",
                "n": tuned["n"],
                "became_wrong": wrong,
            }
        )
    return pd.DataFrame(rows)


def _knowledge(
    domains: tuple[str, ...], shares: np.ndarray, rng: np.random.Generator
) -> dict[str, Any]:
    raw = 0.8 * shares + 0.2 / len(domains)
    return {
        "domains": {
            d: {
                "share": float(shares[j]),
                "low": float(max(0, shares[j] - rng.uniform(0.01, 0.03))),
                "high": float(shares[j] + rng.uniform(0.01, 0.03)),
                "raw_share": float(raw[j]),
            }
            for j, d in enumerate(domains)
        },
        "n_samples": 2000,
        "n_rejected": 37,
        "warnings": ["intervals too wide to decide on: law ±0.060."],
        "judge": "classifier",
        "base_model": "pretrained on the sample",
        "seed": 0,
        "rounds": 4,
    }


def _changed(domains: tuple[str, ...]) -> pd.DataFrame:
    rows = [
        {
            "domain": d,
            "task": f"{d}_choice",
            "item": f"{d}_choice:{n}",
            "change": "became wrong" if n % 2 else "became right",
            "question": f"Question {n} of {d}?",
            "truth": "right",
            "base": "right" if n % 2 else "wrong",
            "tuned": "wrong" if n % 2 else "right",
        }
        for d in domains
        for n in range(10)
    ]
    return pd.DataFrame(rows)


def _samples(domains: tuple[str, ...], rng: np.random.Generator) -> pd.DataFrame:
    chosen = rng.integers(0, len(domains), 300)
    return pd.DataFrame(
        {
            "index": range(300),
            "text": [TEXTS[j % len(TEXTS)] for j in chosen],
            "domain": [domains[j] for j in chosen],
            "confidence": rng.uniform(0.4, 1.0, 300),
            "status": ["ok"] * 300,
            "flag": ["degenerate" if i % 29 == 0 else "" for i in range(300)],
        }
    )


def _ingest(domains: tuple[str, ...], rng: np.random.Generator) -> dict[str, Any]:
    return {
        d: {
            "read": 2400 + 50 * j,
            "rejected": {
                "bad_json": {
                    "count": 2 + j,
                    "examples": [
                        {"where": f"data/{d}.jsonl:{17 + j}", "detail": "Expecting ',' delimiter"}
                    ],
                },
                "empty_output": {
                    "count": int(rng.integers(4, 40)),
                    "examples": [
                        {"where": f"data/{d}.jsonl:{n}", "detail": "the answer is empty"}
                        for n in (101, 240, 318, 900)
                    ],
                },
            },
            "duplicates": {"exact": int(rng.integers(20, 130)), "near": int(rng.integers(5, 60))},
            "leaked": int(rng.integers(0, 9)),
            "left_out_by_weight": 0,
            "left_out_by_limit": 11 * (j % 2),
            "train_rows": 2000 + 10 * j,
            "train_tokens": 150_000 + 9_000 * j,
            "validation_rows": 240,
            "validation_tokens": 18_000,
            "steering_rows": 130,
            "report_rows": 110,
        }
        for j, d in enumerate(domains)
    }


def compared(domains: tuple[str, ...] = SIX) -> dict[str, Any]:
    """``comparison`` and ``comparison_history`` of three strategies with three seeds each.

    Uniform ends at 2.0, 2.2 and 2.4 on every domain; foster is 0.1, 0.2 and 0.3 below it; expand is
    0.5 below it on the second domain and 0.1 above it on the others. All began at 2.2.
    """
    uniform = (2.0, 2.2, 2.4)
    rows, history = [], []
    for strategy in ("uniform", "foster", "expand"):
        for seed, level in enumerate(uniform):
            for j, domain in enumerate(domains):
                change = {
                    "uniform": 0.0,
                    "foster": -0.1 * (seed + 1),
                    "expand": -0.5 if j == 1 else 0.1,
                }[strategy]
                about = {"strategy": strategy, "kind": strategy, "seed": seed, "domain": domain}
                loss = {"task": "held_out", "metric": "nats_per_token", "value": level + change}
                right = {"task": "questions", "metric": "acc", "value": 0.5 - change / 4}
                rows += [
                    {**about, **loss, "base": 2.2, "n": 40},
                    {**about, **right, "base": 0.4, "n": 60},
                ]
                moved = (1 if j == 1 else -1 / (len(domains) - 1)) * (strategy != "uniform")
                history += [
                    {
                        **about,
                        "round": r,
                        "weight": 1 / len(domains) + 0.02 * r * moved if r else None,
                    }
                    for r in range(4)
                ]
    return {"comparison": pd.DataFrame(rows), "comparison_history": pd.DataFrame(history)}
