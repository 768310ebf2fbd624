"""Compare our curves with the schedules that they are named after, for random parameters.

The golden tables have fixed cases, and their test needs no framework. This script calls the frameworks themselves: each case in
`cases` draws parameters, builds the schedule of a framework and our curve for it, and compares their rates. The docstring of
this package describes the environment.

    PYTHONPATH=.:tests/schedules python -m origins.differential --sources SOURCES --output docs/differential.json

A difference is more than 1e-9 of a rate and 1e-12 of the largest rate.
"""

import argparse
import importlib
import json
import pkgutil
import platform
import sys
import time
from pathlib import Path
from typing import Any

from origins import cases
from origins.comparisons import ABSOLUTE, RELATIVE, Draw
from origins.libraries import LIBRARIES, Library, prepare


def compare(name: str, seed: int, sets: int) -> dict[str, Any]:
    """Compare the cases of a library, print the differences, and return the numbers of them and of everything else."""
    library = LIBRARIES[name]
    counts: dict[str, Any] = {
        "version": library.version(),
        "cases": len(library.cases),
        "sets": 0,
        "rates": 0,
        "omitted": 0,
        "differences": 0,
    }
    for draw_case in library.cases:
        began, differing = time.monotonic(), 0
        for number in range(sets):
            draw = Draw(f"{seed} {draw_case.__name__} {number}")
            compared = draw_case(draw)
            points, omitted = compared.sample(draw)
            largest = max((abs(theirs) for _, theirs, _ in points), default=0.0)
            wrong = [
                (k, theirs, ours)
                for k, theirs, ours in points
                if not abs(theirs - ours) <= RELATIVE * abs(theirs) + ABSOLUTE * largest
            ]
            counts["sets"] += 1
            counts["rates"] += len(points)
            counts["omitted"] += omitted
            counts["differences"] += len(wrong)
            differing += bool(wrong)
            if wrong:
                print(f"{draw_case.__name__}, set {number}: {len(wrong)} of {len(points)} rates differ\n  {compared}")
                print("\n".join(f"  at {k}: {theirs!r}, ours {ours!r}" for k, theirs, ours in wrong[:5]))
        print(f"{draw_case.__name__}: {differing} of {sets} sets differ, {time.monotonic() - began:.1f} s", flush=True)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("libraries", nargs="*", help=f"libraries to compare, by default all: {', '.join(LIBRARIES)}")
    parser.add_argument("--sets", type=int, default=300, metavar="N", help="parameter sets per case (default: 300)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the random parameters (default: 1)")
    parser.add_argument("--sources", type=Path, metavar="DIR", help="folder of the libraries that are not installed")
    parser.add_argument("--output", type=Path, metavar="FILE", help="file for the numbers, as JSON")
    flags = parser.parse_args()
    Library.sources = flags.sources
    names = flags.libraries or [name for name, library in LIBRARIES.items() if flags.sources or not library.file]
    prepare()
    for module in pkgutil.iter_modules(cases.__path__):
        importlib.import_module(f"{cases.__name__}.{module.name}")
    table = {name: compare(name, flags.seed, flags.sets) for name in names}
    print(f"\n{'library':16}{'version':>14}{'cases':>8}{'sets':>8}{'rates':>10}{'omitted':>9}{'differences':>13}")
    total = {key: sum(counts[key] for counts in table.values()) for key in ("cases", "sets", "rates", "omitted", "differences")}
    for name, counts in (table | {"all": {"version": f"Python {platform.python_version()}"} | total}).items():
        row = [counts[key] for key in total]
        print(f"{name:16}{counts['version']:>14}{row[0]:8}{row[1]:8}{row[2]:10}{row[3]:9}{row[4]:13}")
    if flags.output:
        text = json.dumps({"libraries": table, "seed": flags.seed, "sets_per_case": flags.sets}, indent=1)
        flags.output.write_text(text + "\n", encoding="utf-8")
    sys.exit(total["differences"] > 0)


if __name__ == "__main__":
    main()
