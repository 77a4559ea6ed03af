"""Which held-out rows are measured, as far as kept results depend on it."""

ROW_CHOICE = 2
"""Enters the fingerprint of what is measured on rows that
:func:`versatune.modeling.heldout.chosen_rows` chose; raise it when other rows would be chosen."""
