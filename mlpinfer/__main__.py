"""`python -m mlpinfer`."""

from mlpinfer.cli import run

if __name__ == "__main__":
    run()
