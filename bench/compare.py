"""Compare mlpinfer with its peers on this machine and print the tables of `bench/README.md`.

Every contender is a process of its own, a round is one process of each, and rounds go to and fro, so that
a machine that slows down slows all. Of each benchmark the best round counts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import cold
import tables
from contenders import CONTENDERS

HERE = Path(__file__).parent
#: They would set the threads of some contenders and not of others.
THREAD_VARIABLES = {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"}


def run_pytest(arguments: list[str], quick: bool) -> dict:
    """Run one benchmark process and return what pytest-benchmark measured."""
    seconds, least = ("0.05", "2") if quick else ("0.5", "5")
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "benchmark.json"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
        command += [f"--benchmark-max-time={seconds}", f"--benchmark-min-rounds={least}"]
        command += ["--benchmark-disable-gc", f"--benchmark-json={output}"]
        environment = {name: value for name, value in os.environ.items() if name not in THREAD_VARIABLES}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(arguments)}: expected all to pass, found\n{done.stdout}{done.stderr}")
        return json.loads(output.read_text())


def measure(contenders: list[str], rounds: int, quick: bool) -> tables.Results:
    """Run all processes, round by round."""
    suite, own = (
        [str(HERE / f"test_{name}.py") for name in ("images", "networks")],
        str(HERE / "test_mlpinfer.py"),
    )
    jobs = [[own], *([*suite, "--contender", name] for name in contenders)]
    results = tables.Results()
    for i in range(rounds):
        for job in jobs[:: -1 if i % 2 else 1]:
            print(f"round {i + 1} of {rounds}: {Path(job[-1]).stem}", file=sys.stderr)
            results.add(run_pytest(job, quick))
    return results


def main() -> None:
    default = ",".join(name for name in CONTENDERS if name != "mlpinfer-gpu")
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="processes of each contender [default: 5]")
    parser.add_argument("--contenders", default=default, metavar="NAMES", help=f"[default: {default}]")
    parser.add_argument("--pairs", type=int, default=20, help="pairs of processes, 0 for none [default: 20]")
    parser.add_argument(
        "--quick", action="store_true", help="one short round: does it run? Numbers are rough"
    )
    options = parser.parse_args()
    contenders = options.contenders.split(",")
    if unknown := set(contenders) - set(CONTENDERS):
        parser.error(f"--contenders: expected names of {', '.join(CONTENDERS)}, found {', '.join(unknown)}")
    rounds, pairs = (1, min(3, options.pairs)) if options.quick else (max(1, options.rounds), options.pairs)
    results = measure(contenders, rounds, options.quick)
    processes = {}
    for name, arguments in cold.COMMANDS.items() if pairs else ():
        print(f"{pairs} pairs: {name}", file=sys.stderr)
        processes[name] = cold.compare(arguments, pairs)
    print("\n\n".join(tables.sections(results, processes, rounds)))


if __name__ == "__main__":
    main()
