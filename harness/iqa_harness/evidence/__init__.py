"""Whether a model's numbers are to be believed: checks, probes, flags, verdicts."""
