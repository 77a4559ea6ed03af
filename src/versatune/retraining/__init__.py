"""Retraining by the clock: what is new, who is champion, and whether a challenger takes over."""
