"""The embedded sample: true facts of six domains, and what is made of them."""
