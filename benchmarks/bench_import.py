"""The time of `import agentspan` beside `import pydantic` with one model class, and that of the first span.

The first span imports what recording needs.

Each figure is the median of fresh processes that take turns, so that a noisy machine is noisy for all of them. All are
compiled before, as an installed package is, also where the environment says that Python shall not keep that.

    python benchmarks/bench_import.py [--rounds 15]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

CLOCK = "import time; began = time.perf_counter()\n"
SAY = "\nprint((time.perf_counter() - began) * 1000)"

PROGRAMS = {
    "import pydantic + one model class": CLOCK + "import pydantic\nclass M(pydantic.BaseModel):\n    a: int" + SAY,
    "import agentspan": CLOCK + "import agentspan" + SAY,
    "configure + first span": (
        "import agentspan\n" + CLOCK + "agentspan.configure({db!r})\n"
        "with agentspan.run('bench'), agentspan.span('tool', {{'name': 'x'}}): pass" + SAY
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        db = str(Path(folder) / "runs.db")
        env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(Path(folder) / "compiled")}
        times: dict[str, list[float]] = {name: [] for name in PROGRAMS}
        for round_ in range(rounds + 1):
            for name, program in PROGRAMS.items():
                code = program.format(db=db) if "{db" in program else program
                done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=env)
                if round_:  # the first one compiles, and makes the file
                    times[name].append(float(done.stdout))
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, value in medians.items():
        print(f"{name:<36}{value:8.1f} ms")
    ours, theirs = medians["import agentspan"], medians["import pydantic + one model class"]
    print(f"{'import agentspan / import pydantic':<36}{ours / theirs:8.2f} ×")
    code = "import sys, agentspan; print(*[m for m in ('sqlite_utils', 'jsonschema', 'asyncio') if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    print(f"sqlite_utils, jsonschema, asyncio imported: {loaded or 'none'}")


if __name__ == "__main__":
    main()
