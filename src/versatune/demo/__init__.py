"""The embedded sample: true facts of six domains, and the corpus, rows and questions from them."""
