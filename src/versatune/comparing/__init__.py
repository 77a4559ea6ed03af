"""Strategies compared: what is run, and what each run keeps."""
