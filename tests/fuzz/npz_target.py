"""Fuzz the reader of npz files."""

from tests.fuzz.harness import main

if __name__ == "__main__":
    main("npz")
