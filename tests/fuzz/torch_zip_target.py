"""Fuzz the reader of torch_zip files."""

from tests.fuzz.harness import main

if __name__ == "__main__":
    main("torch")
