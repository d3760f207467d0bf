"""The version, alone, so that a build can read it without importing NumPy."""

VERSION = "0.1.0"
