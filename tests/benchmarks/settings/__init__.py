"""Strategies by real training in settings that were declared before anything was tuned."""
