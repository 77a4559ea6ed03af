"""What keeps the domains that have no rows: the model's own texts, a part of the way."""

SELF = "other"
"""The one domain without rows."""
PARTS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SHARES = {"target_only": 0.0, "self_0.3": 0.3, "self_0.1": 0.1, "self_0.5": 0.5}
"""Arms, and the share of the model's own texts in each."""
REAL = "real_0.3"
"""The arm that has rows of the other domains, in equal shares of 0.3: what data would be worth."""
