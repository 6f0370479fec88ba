"""What no attack can do: intervals that hold an image's score under every admissible image."""
