"""Fuzz the reader of idx files."""

from tests.fuzz.harness import main

if __name__ == "__main__":
    main("idx")
