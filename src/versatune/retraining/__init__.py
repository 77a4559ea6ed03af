"""Scheduled retraining: what is new, which model is champion, and whether a challenger replaces
it."""
