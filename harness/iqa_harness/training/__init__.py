"""Training of the models under test: settings in `config`, the loop in `loop`.

Importing this package loads no torch, so that the command line can list presets at once.
"""
