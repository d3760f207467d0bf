"""How right and how fast a predictor is: scores, sweeps and their reports."""
