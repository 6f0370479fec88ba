"""The embedded sets: photographs from installed packages, distorted, labelled, built once a machine."""
