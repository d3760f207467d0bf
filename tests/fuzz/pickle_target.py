"""Fuzz the reader of pickle files."""

from tests.fuzz.harness import main

if __name__ == "__main__":
    main("pickle")
