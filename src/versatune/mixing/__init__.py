"""Domain shares: the paper's formulas, strategies that change shares, and the round planner.

Needs only numpy. :mod:`~versatune.mixing.formulas` has one pure function a formula,
:mod:`~versatune.mixing.strategies` one interface (measured losses in, shares out), and
:mod:`~versatune.mixing.planner` turns shares into the rows of a round.
"""
