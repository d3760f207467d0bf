"""How a network is run: predictors, evaluators, array backends. It knows no files."""
