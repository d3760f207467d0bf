"""The compiled evaluator: a C extension that runs a whole folded network in one call."""
