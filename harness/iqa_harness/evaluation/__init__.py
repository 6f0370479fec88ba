"""Clean scores of many models on many sets."""
