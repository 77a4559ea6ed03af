"""A project as a whole: its parameters, and what holds for each of its commands."""
