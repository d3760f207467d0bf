"""Predictions and scores of more rows than memory holds, in one process or on a cluster."""
