"""The order of domains: keeps the shares at every step, for examples of any size.

Let w_i be the shares, n_i what domain i has had, N = sum n_i, and B the bound; all but the
shares in one unit (rows, tokens, supervised tokens). No example is larger than B.

**The rule.** A domain is *due* while n_i + c_i <= w_i N, c_i being what it was ahead of its
share when the round began. Its *deadline* is the N at which it would lie B behind,
(n_i + B) / w_i. The due domain with the earliest deadline has its turn; the due ones after it
may be served out of turn when that can make none late.

**Why |n_i - w_i N| <= B holds after every example.** Ahead: checked before an example is given.
Behind: for a future total t, the domains whose deadlines lie before t need at most
sum (w_i t - n_i) until then, and t - N is there to give, so

    slack(t) = t - N + B - sum (w_i t - n_i)   over i with (n_i + B) / w_i <= t

must not fall below 0: a domain more than B behind at t would mean a slack below 0 there. Giving
s to a domain lowers slack(t) by s at the t before its deadline and nowhere else. With no c_i,
the domains that precede it then are not due, n_i > w_i N, hence slack(t) >= B >= s, and its turn
is always safe; in all other cases the slack is compared with s before. This is the argument that
earliest deadline first is optimal, with one example as the only blocking (as in worst-case fair
queueing, WF2Q). Taking the largest deficit w_i N - n_i, as Megatron's blend does, has no such
bound: with many domains some fall further behind.

**Why c_i.** Without it every round would round the same way: over many short rounds a domain
with a small share ends far from it. Where c_i can't be honoured safely, the round goes on
without.
"""

from heapq import heapify, heappop, heappush

import numpy as np

from versatune.mixing.shares import Array


class Schedule:
    """Turns among domains with positive shares, numbered 0, 1, ...

    One example after another: :meth:`turn` names a domain, again :meth:`turn` the next one if
    that has nothing that fits, until :meth:`give` or :meth:`end`.
    """

    def __init__(self, weights: Array, bound: float, ahead: Array) -> None:
        """``weights`` shape (k,), positive, sum 1; ``ahead`` c_i, taken up to half the bound."""
        self._weights, self._bound = weights, bound
        self._share: list[float] = weights.tolist()
        self._n = [0.0] * weights.size
        self._total = 0.0
        self._carried = ahead
        self._used: list[float] = np.clip(ahead, -bound / 2, bound / 2).tolist()
        self._carries = any(self._used)
        self._passed: list[tuple[float, int]] = []
        self.asked = 0
        """How many domains were asked since the last example."""
        self._rank()
        self._measure_slack()

    @property
    def ahead(self) -> Array:
        """How far each domain is ahead of its share, with what it brought, shape (k,)."""
        result: Array = self._carried + np.array(self._n) - self._weights * self._total
        return result

    def turn(self) -> int | None:
        """The due domain with the earliest deadline that was not yet asked; None after the last."""
        if not self.asked:
            early, total = self._early, self._total
            while early and (early[0][0] <= total or not self._due):
                i = heappop(early)[1]
                heappush(self._due, ((self._n[i] + self._bound) / self._share[i], i))
        if not self._due:
            return None
        entry = heappop(self._due)
        self._passed.append(entry)
        self.asked += 1
        return entry[1]

    def allows(self, size: int) -> bool:
        """Whether the domain whose turn it is may have an example of this size.

        An example in turn is always allowed in the end: if what was carried stands against it,
        that is dropped, and :meth:`turn` is to be asked anew (this returns False with nobody
        asked). Out of turn, False means that the row should be closed.
        """
        if self.asked == 1 and not self._carries:
            return True
        deadline, i = self._passed[-1]
        lead = self._n[i] + size - self._share[i] * (self._total + size)
        if lead <= self._bound and self._has_slack(size, deadline):
            return True
        if self.asked == 1:
            self.end()
            self._carries, self._used = False, [0.0] * len(self._share)
            self._rank()
        return False

    def give(self, size: int) -> None:
        """The domain whose turn it is gets an example of this size."""
        i = self._passed.pop()[1]
        self._total += size
        self._spent += size
        self._n[i] += size
        heappush(self._early, ((self._n[i] + self._used[i]) / self._share[i], i))
        self.end()

    def end(self) -> None:
        """Nobody (else) gets anything: those who were asked wait on."""
        for entry in self._passed:
            heappush(self._due, entry)
        self._passed.clear()
        self.asked = 0

    def _rank(self) -> None:
        ranked = zip(self._n, self._used, self._share, strict=True)
        self._early = [((had + used) / share, i) for i, (had, used, share) in enumerate(ranked)]
        heapify(self._early)
        self._due: list[tuple[float, int]] = []

    def _has_slack(self, size: int, deadline: float) -> bool:
        """Whether slack(t) >= size at every t before ``deadline``.

        Since slack was measured it has fallen by no more than what was given; it is measured
        again when that is not enough to say yes.
        """
        if size <= self._slack_before(deadline):
            return True
        self._measure_slack()
        return size <= self._slack_before(deadline)

    def _slack_before(self, deadline: float) -> float:
        after = int(self._deadlines.searchsorted(deadline))
        return float(self._least[after - 1]) - self._spent if after else np.inf

    def _measure_slack(self) -> None:
        """Sort the deadlines: slack(t) rises between them, so that it is least at one of them."""
        n = np.array(self._n)
        deadlines = (n + self._bound) / self._weights
        order = np.argsort(deadlines)
        t = self._deadlines = deadlines[order]
        needs = np.cumsum(self._weights[order]) * t - np.cumsum(n[order])
        self._least = np.minimum.accumulate(t - self._total + self._bound - needs)
        self._spent = 0.0
