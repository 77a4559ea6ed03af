"""Changes of held-out losses, paired by row, with standard errors."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from versatune.intervals import log_ratio
from versatune.mixing.shares import Array
from versatune.modeling.heldout import HeldOut

Rows = list[list[float]]
"""Nats of each held-out row, by domain."""


class PairedRows:
    """The rows of the base model; JSON, so that a resume pairs too."""

    def __init__(self, domains: tuple[str, ...]) -> None:
        self._domains = domains
        self._base: Rows = []
        self.others: list[dict[str, Any]] = []
        """Losses of domains that are not trained on: ``round``, ``losses`` and ``stderrs`` of
        their logarithms since the first, by domain."""
        self._others_base: Mapping[str, HeldOut] = {}

    def begin(self, base: Mapping[str, HeldOut]) -> None:
        """Take the base model's rows."""
        self._base = _rows(base, self._domains)

    def since_base(self, measured: Mapping[str, HeldOut]) -> Array | None:
        """Standard errors of ln(l(t) / l(0)), shape (k,); None unknown."""
        return paired_stderr(self._base, _rows(measured, self._domains))

    def note_others(self, round_: int, measured: Mapping[str, HeldOut]) -> None:
        """Keep the losses of domains that are not trained on, after this round."""
        base = self._others_base = self._others_base or dict(measured)
        errors = paired_stderr(_rows(base, tuple(base)), _rows(measured, tuple(base)))
        self.others.append(
            {
                "round": round_,
                "losses": {name: h.nats_per_token for name, h in measured.items()},
                "stderrs": {} if errors is None else dict(zip(base, errors.tolist(), strict=True)),
            }
        )

    def state(self) -> dict[str, Rows]:
        """What a checkpoint holds."""
        return {"base": self._base}

    def load(self, state: Mapping[str, Rows]) -> None:
        """Go on from :meth:`state`."""
        self._base = state["base"]


def paired_stderr(before: Rows, after: Rows) -> Array | None:
    """Standard error of ln(after / before) by domain, of the same rows; None without rows.

    A single row has none and counts as 1, so no strategy takes its change for a signal.
    """
    if not all(map(len, before)) or [len(b) for b in before] != [len(a) for a in after]:
        return None
    errors = [log_ratio(np.array(b), np.array(a))[1] for b, a in zip(before, after, strict=True)]
    result: Array | None = np.nan_to_num(np.array(errors), nan=1.0)
    return result


def _rows(measured: Mapping[str, HeldOut], domains: tuple[str, ...]) -> Rows:
    return [list(measured[name].row_nats) for name in domains]
