"""The machine: its devices, its versions."""
