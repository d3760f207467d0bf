"""Fuzz the reader of image files."""

from tests.fuzz.harness import main

if __name__ == "__main__":
    main("image")
