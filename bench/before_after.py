"""Compare two installed copies of mlpinfer, before and after a change, and print ratios of their speed.

    python bench/before_after.py OLD/bin/python NEW/bin/python

Both are interpreters of environments in which a copy is installed. Rounds alternate between the two, so
that a machine that slows down slows both. A ratio above 1 means that the new copy is faster. Of every batch
size the best pass of all rounds counts, of processes the median of pairs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WEIGHTS = Path(__file__).resolve().parents[1] / "weights" / "mnist_784-50-100-10.pkl"
BATCH_SIZES = (1, 10, 100, 1_000, 10_000)
#: Prints rows a second by batch size: of the whole test set, or of its first 1,000 rows one by one.
MEASURE = """
import json, sys, time
from mlpinfer import Predictor, load_mnist, load_network

weights, *batch_sizes = sys.argv[1:]
x, _ = load_mnist(normalize=False)
rates = {}
for batch_size in map(int, batch_sizes):
    rows = x[:1_000] if batch_size == 1 else x
    predictor = Predictor(load_network(weights), batch_size=batch_size, scale=1 / 255)
    predictor.predict(rows)
    best, end = float("inf"), time.perf_counter() + 0.5
    while time.perf_counter() < end:
        begin = time.perf_counter()
        predictor.predict(rows)
        best = min(best, time.perf_counter() - begin)
    rates[batch_size] = len(rows) / best
print(json.dumps(rates))
"""


def measure(python: str) -> dict[str, float]:
    """Return rows a second by batch size, of one process."""
    command = [python, "-c", MEASURE, str(WEIGHTS), *map(str, BATCH_SIZES)]
    # Away from the checkout, which would be imported instead of what is installed.
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def start(python: str) -> float:
    """Return the seconds of a whole process that scores the test set once."""
    command = [python, "-m", "mlpinfer", "score", "--repeat", "1", "--json", "-"]
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        subprocess.run(command, cwd=folder, capture_output=True, check=True)
        return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("old", metavar="OLD", help="the interpreter of the copy before the change")
    parser.add_argument("new", metavar="NEW", help="the interpreter of the copy after it")
    parser.add_argument("--rounds", type=int, default=5, help="processes of each copy [default: 5]")
    parser.add_argument("--pairs", type=int, default=20, help="pairs of whole processes [default: 20]")
    options = parser.parse_args()
    pythons = {"old": options.old, "new": options.new}
    best = {name: dict.fromkeys(map(str, BATCH_SIZES), 0.0) for name in pythons}
    for number in range(options.rounds):
        for name in sorted(pythons, reverse=bool(number % 2)):
            print(f"round {number + 1} of {options.rounds}: {name}", file=sys.stderr)
            for batch_size, rate in measure(pythons[name]).items():
                best[name][batch_size] = max(best[name][batch_size], rate)
    ratios = [start(options.old) / start(options.new) for _ in range(options.pairs)]
    print("| | old, thousand rows a second | new | ratio |\n| --- | ---: | ---: | ---: |")
    for batch_size in best["old"]:
        old, new = best["old"][batch_size], best["new"][batch_size]
        print(f"| batches of {batch_size} | {old / 1e3:,.0f} | {new / 1e3:,.0f} | {new / old:.2f} |")
    if ratios:
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"| process, {len(ratios)} pairs | | | {statistics.median(ratios):.2f} ({spread}) |")


if __name__ == "__main__":
    main()
