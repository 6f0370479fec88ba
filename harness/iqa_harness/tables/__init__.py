"""A run's tables from its stored rows."""
