"""Data sets: what an image set is, the embedded one, and a user's own CSV."""
