"""The conductor: data, metrics, runner, training and the command line."""
