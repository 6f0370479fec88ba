"""Many trainings and runs as one study."""
