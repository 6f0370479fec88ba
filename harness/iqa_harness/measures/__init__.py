"""Numbers from scores: correlations, robustness measures, intervals, the composed worst case."""
