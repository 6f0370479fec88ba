"""Images that lie in files: decoded, hashed, cached."""
