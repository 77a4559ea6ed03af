"""Simulated trainings in which the true effect of every share is known."""
