"""Fuzz the reader of onnx files."""

from tests.fuzz.harness import main

if __name__ == "__main__":
    main("onnx")
