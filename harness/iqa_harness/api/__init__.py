"""The verbs of the harness as Python functions; the command line calls these and nothing else."""
