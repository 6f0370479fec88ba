"""Other libraries' attacks, held to the same rules as ours."""
