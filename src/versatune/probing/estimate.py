"""Shares with their intervals, and when to stop sampling.

The interval of a share is the percentile bootstrap: texts are drawn again with replacement, and
the labelled rows inside each domain get new weights, because the correction is only as sure as
they are.
With an audit a text is drawn together with the second judge's answer on it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from versatune.intervals import Array
from versatune.probing.judges.base import Judgement, Labelled, Status
from versatune.probing.quantification import (
    Correction,
    Labels,
    adjusted_shares,
    audited_mean,
    correct,
    em_shares,
    hard,
    raw_shares,
    response_matrix,
)

LEVEL = 0.95
_EM_REPLICATES = 200
"""Replicates for expectation maximisation at most: each runs its own optimisation."""


@dataclass(frozen=True)
class Estimate:
    """Shares of k domains; all fields have shape (k,)."""

    share: Array
    low: Array
    high: Array
    raw: Array
    """Mean judgement, before the correction."""
    raw_low: Array
    raw_high: Array

    @property
    def half_widths(self) -> Array:
        """How far each interval reaches from its share, the farther side."""
        return np.maximum(self.high - self.share, self.share - self.low)


@dataclass(frozen=True)
class Audit:
    """What a second judge says of a part of the n texts."""

    probabilities: Array
    """(n, k); rows of texts it was not asked about, or gave no answer to, are NaN."""
    chances: Array
    """(n,) each text's chance to be asked about."""
    labelled: Labelled
    """Rows of known domain as the second judge sees them."""
    vocab_coverage: Array | None = None
    """(n,) share of a text's words the second judge knows; NaN or None when it can't say."""

    def part(self, texts: np.ndarray) -> "Audit":
        """The audit of some of the texts, by index or mask."""
        return Audit(self.probabilities[texts], self.chances[texts], self.labelled)

    @property
    def judgement(self) -> Judgement:
        """The same as a judgement; a text it was not asked about has the status ``failed``."""
        status: list[Status] = ["failed" if np.isnan(p) else "ok" for p in self.probabilities[:, 0]]
        unknown = np.full(len(status), np.nan)
        known = unknown if self.vocab_coverage is None else self.vocab_coverage
        return Judgement(self.probabilities, status, known)

    def mean(self, probabilities: Array, counts: Array) -> Array:
        """Estimate of its mean over all texts, (k,); see :func:`audited_mean`."""
        return audited_mean(probabilities, self.probabilities, self.chances, counts)


def estimate_shares(
    probabilities: Array,
    labelled: Labelled,
    correction: Correction,
    replicates: int,
    seed: int,
    level: float = LEVEL,
    audit: Audit | None = None,
) -> Estimate:
    """Corrected and raw shares with their intervals; ``probabilities`` (n, k), all judged.

    With an ``audit`` the shares are corrected for the second judge's errors on its own rows; raw is
    what the first judge alone gives. ValueError for ``em`` with an audit: it needs one judge's
    probabilities for every text.
    """
    raw = raw_shares(probabilities)
    rng = np.random.default_rng(seed)
    if audit is None:
        share = correct(probabilities, labelled.probabilities, labelled.labels, correction)
        means, draws = _replicates(probabilities, labelled, correction, replicates, rng)
    else:
        means = _resampled_means(probabilities, replicates, rng)
        counted, audit = _as_counted(probabilities, audit, correction)
        n, known = len(counted), (audit.labelled.probabilities, audit.labelled.labels)
        share = adjusted_shares(audit.mean(counted, np.ones(n)), response_matrix(*known))
        again = [audit.mean(counted, _counts(n, rng)) for _ in range(replicates)]
        draws = _all_adjusted(again, _resampled_responses(*known, replicates, rng))
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(draws, tails, axis=0)
    raw_low, raw_high = np.quantile(means, tails, axis=0)
    return Estimate(
        share=share,
        low=np.minimum(low, share),
        high=np.maximum(high, share),
        raw=raw,
        raw_low=raw_low,
        raw_high=raw_high,
    )


def narrow_enough(estimate: Estimate, n: int, half_width: float) -> bool:
    """Whether to stop: every half-width, Anscombe-corrected, is at most ``half_width``.

    sqrt(h^2 + (1.96 / n)^2) <= d. Stopping when an interval of fixed width is reached keeps its
    coverage as d falls (Chow & Robbins 1965); the term in 1/n (Anscombe's) keeps a share that has
    not been met yet, whose estimated variance is 0, from stopping too early. At a given d this is
    an approximation, which ``tests/invariants/test_probe_coverage.py`` checks.
    """
    reach = np.sqrt(estimate.half_widths**2 + (1.96 / n) ** 2)
    return bool((reach <= half_width).all())


def bounds(low: float, high: float, missing: float) -> tuple[float, float]:
    """The interval's ends if the ``missing`` part of the texts were all elsewhere, or all here."""
    return (1 - missing) * low, (1 - missing) * high + missing


def _replicates(
    probabilities: Array,
    labelled: Labelled,
    correction: Correction,
    replicates: int,
    rng: np.random.Generator,
) -> tuple[Array, Array]:
    """Bootstrap replicates of raw means (R, k) and of corrected shares (R', k)."""
    means = _resampled_means(probabilities, replicates, rng)
    if correction == "none":
        return means, means
    if correction == "em":
        n, k = probabilities.shape
        prior = np.full(k, 1 / k)
        weights = [_counts(n, rng) for _ in range(min(replicates, _EM_REPLICATES))]
        return means, np.stack([em_shares(probabilities, prior, w) for w in weights])
    known, counted = labelled.probabilities, means
    if correction == "acc":
        known = hard(known)
        counted = _resampled_means(hard(probabilities), replicates, rng)
    responses = _resampled_responses(known, labelled.labels, replicates, rng)
    return means, _all_adjusted(counted, responses)


def _all_adjusted(means: Iterable[Array], responses: Array) -> Array:
    """Adjusted shares of each replicate, (R, k)."""
    return np.stack([adjusted_shares(*pair) for pair in zip(means, responses, strict=True)])


def _as_counted(probabilities: Array, audit: Audit, correction: Correction) -> tuple[Array, Audit]:
    """Both judges' answers as the correction counts them: probabilities, or hard labels."""
    second, rows = audit.probabilities, audit.labelled
    if correction == "em":
        raise ValueError("em needs the same judge's probabilities for every text")
    if correction == "none":
        rows = Labelled.oracle(second.shape[1])
    if correction == "acc":
        answered = ~np.isnan(second[:, 0])
        second = np.where(answered[:, None], hard(second), np.nan)
        rows = Labelled(hard(rows.probabilities), rows.labels, rows.vocab_coverage)
        probabilities = hard(probabilities)
    return probabilities, Audit(second, audit.chances, rows)


def _counts(n: int, rng: np.random.Generator) -> Array:
    """How often each of n items is drawn in n draws with replacement."""
    return np.bincount(rng.integers(0, n, n), minlength=n).astype(np.float64)


def _resampled_means(values: Array, replicates: int, rng: np.random.Generator) -> Array:
    n = len(values)
    return np.stack([_counts(n, rng) @ values for _ in range(replicates)]) / n


def _resampled_responses(
    known: Array, labels: Labels, replicates: int, rng: np.random.Generator
) -> Array:
    """Response matrices (replicates, k, k): the labelled rows inside each domain, with new weights.

    Half of them draw the rows again with replacement. That never shows an error which the rows
    happen not to show, and a small domain's share may be that error. So the other half are
    Dirichlet draws (the Bayesian bootstrap, Rubin 1981) with an answer for each of the k domains
    beside the rows, of weight 1 / k each: for hard labels the posterior of the confusion matrix.
    They underrate a judge that never errs. A domain's only row counts as it is.
    """
    k, again = known.shape[1], replicates // 2
    drawn = np.empty((replicates, k, k))
    for domain in range(k):
        rows = known[labels == domain]
        n = len(rows)
        if n == 1:
            drawn[:, domain] = rows
            continue
        counts = rng.multinomial(n, np.full(n, 1 / n), again) / n
        weights = rng.standard_gamma(
            np.append(np.ones(n), np.full(k, 1 / k)), (replicates - again, n + k)
        )
        weights /= weights.sum(axis=1, keepdims=True)
        drawn[:again, domain] = counts @ rows
        drawn[again:, domain] = weights @ np.vstack([rows, np.eye(k)])
    return drawn
