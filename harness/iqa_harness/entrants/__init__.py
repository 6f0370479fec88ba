"""Models under test: what a user names, what it is made of, where its code lies."""
