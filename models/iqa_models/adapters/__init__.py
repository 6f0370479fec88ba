"""Other people's models under test, one file a way to name them (`iqa_models.index.ADAPTERS`)."""
