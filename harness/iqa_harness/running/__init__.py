"""A run: its cells computed somewhere, its manifest kept."""
