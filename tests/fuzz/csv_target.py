"""Fuzz the reader of csv files."""

from tests.fuzz.harness import main

if __name__ == "__main__":
    main("csv")
