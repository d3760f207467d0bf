"""Fuzz the reader of npy files."""

from tests.fuzz.harness import main

if __name__ == "__main__":
    main("npy")
