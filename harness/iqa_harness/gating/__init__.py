"""Is a run worse than a baseline?"""
