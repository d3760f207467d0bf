"""Untrusted bytes to arrays, and arrays to files: it knows no engine."""
