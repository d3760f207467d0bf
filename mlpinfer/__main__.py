"""`python -m mlpinfer`."""

from mlpinfer.cli import main

if __name__ == "__main__":
    main()
