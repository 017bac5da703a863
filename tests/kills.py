"""Kills a run at random moments, restarts it each time, and compares its end with a quiet run's.

python -m tests.kills --kills=20 --seed=0 --out=results/faults/kills.json
python -m tests.kills --kills=5 --seed=0 --processes=2 --out=results/faults/kills_of_two.json
"""

import argparse
import json
import platform
import random
import re
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from running import STEPS, end, finish, lines, saved, start, state_at, steps  # noqa: E402

from contextssl_jax.run.metadata import device_summary, git_revision  # noqa: E402

LONGEST = 1.5  # seconds that a run lives, at most, once it has begun to save


def kill_once(workdir: Path, rng: random.Random, processes: int) -> dict:
    """Starts the run, kills one of its processes at a random moment; says what happened."""
    run = start(workdir, processes=processes)
    before, began = set(saved(workdir)), time.monotonic()
    # Half of the kills come as soon as something new lies in the folder: mostly during a save.
    early, life = rng.random() < 0.5, rng.uniform(0, LONGEST)
    while all(process.poll() is None for process in run):
        something_new = set(saved(workdir)) - before
        if something_new and (early or time.monotonic() - began > life):
            break
        if not something_new:
            began = time.monotonic()
        time.sleep(0.002)
    time.sleep(rng.uniform(0, 0.05))
    victim = rng.randrange(processes)
    alive = run[victim].poll() is None
    names = saved(workdir)
    run[victim].kill()
    killed = time.monotonic()
    told = end(run)
    result = {
        "killed": alive,
        "during_a_save": any("tmp" in name for name in names),
        "checkpoints": steps(workdir),
    }
    if processes > 1 and alive:
        survivor = run[1 - victim]
        named = re.search(rf"lost process {victim}", told[1 - victim]) is not None
        result |= {
            "victim": victim,
            "others_ended_after_seconds": round(time.monotonic() - killed, 2),
            "others_status": survivor.returncode,
            "others_named_it": named,
        }
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        quiet, killed = Path(folder) / "quiet", Path(folder) / "killed"
        finish(quiet, processes=options.processes)
        expected, survived, tries = state_at(quiet, STEPS), 0, []
        while len(tries) < options.kills:
            workdir = killed / str(len(tries))
            kills = []
            while len(kills) < 2:  # killed twice in one life, as restarts can be killed too
                kills.append(kill_once(workdir, rng, options.processes))
                if not kills[-1]["killed"]:
                    break
            tries += [one for one in kills if one["killed"]]
            finish(workdir, processes=options.processes)
            got = state_at(workdir, STEPS)
            same = all(np.array_equal(got[name], leaf) for name, leaf in expected.items())
            same = same and lines(workdir) == lines(quiet)
            survived += same * sum(one["killed"] for one in kills)
            print(f"{len(tries)} kills, {survived} survived bit for bit", flush=True)
    figures = {
        "command": f"python -m tests.kills --kills={options.kills} --seed={options.seed}"
        f" --processes={options.processes}",
        "seed": options.seed,
        "config": "configs/debug.py",
        "git": git_revision(),
        "device": device_summary(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "processes": options.processes,
        "kills": len(tries),
        "survived_bit_identical": survived,
        "during_a_save": sum(one["during_a_save"] for one in tries),
        "tries": tries,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(figures, indent=1) + "\n")
    return 0 if survived == len(tries) else 1


if __name__ == "__main__":
    sys.exit(main())
