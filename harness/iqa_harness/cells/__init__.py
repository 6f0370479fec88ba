"""The units of work: planned, chosen, computed, their examples kept."""
