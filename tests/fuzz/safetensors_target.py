"""Fuzz the reader of safetensors files."""

from tests.fuzz.harness import main

if __name__ == "__main__":
    main("safetensors")
