"""Kill a run at random times, resume it, and compare the result with an uninterrupted run.

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

MAX_DELAY = 1.5  # seconds between the first save and the kill


def kill_once(workdir: Path, rng: random.Random, processes: int) -> dict:
    """Start the run, kill one of its processes at a random time, and return what happened."""
    run = start(workdir, processes=processes)
    before, began = set(saved(workdir)), time.monotonic()
    # Half of the kills happen as soon as the folder has a new file, mostly during a save.
    early, delay = rng.random() < 0.5, rng.uniform(0, MAX_DELAY)
    while all(process.poll() is None for process in run):
        new_files = set(saved(workdir)) - before
        if new_files and (early or time.monotonic() - began > delay):
            break
        if not new_files:
            began = time.monotonic()
        time.sleep(0.002)
    time.sleep(rng.uniform(0, 0.05))
    victim = rng.randrange(processes)
    alive = run[victim].poll() is None
    names = saved(workdir)
    run[victim].kill()
    killed = time.monotonic()
    logs = end(run)
    result = {
        "killed": alive,
        "during_a_save": any("tmp" in name for name in names),
        "checkpoints": steps(workdir),
    }
    if processes > 1 and alive:
        survivor = run[1 - victim]
        named = re.search(rf"lost process {victim}", logs[1 - victim]) is not None
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
        reference, killed = Path(folder) / "reference", Path(folder) / "killed"
        finish(reference, processes=options.processes)
        expected, survived, attempts = state_at(reference, STEPS), 0, []
        while len(attempts) < options.kills:
            workdir = killed / str(len(attempts))
            kills = []
            while len(kills) < 2:  # also kill the resumed run
                kills.append(kill_once(workdir, rng, options.processes))
                if not kills[-1]["killed"]:
                    break
            attempts += [one for one in kills if one["killed"]]
            finish(workdir, processes=options.processes)
            state = state_at(workdir, STEPS)
            same = all(np.array_equal(state[name], leaf) for name, leaf in expected.items())
            same = same and lines(workdir) == lines(reference)
            survived += same * sum(one["killed"] for one in kills)
            print(f"{len(attempts)} kills, {survived} runs bit-identical", flush=True)
    results = {
        "command": f"python -m tests.kills --kills={options.kills} --seed={options.seed}"
        f" --processes={options.processes}",
        "seed": options.seed,
        "config": "configs/debug.py",
        "git": git_revision(),
        "device": device_summary(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "processes": options.processes,
        "kills": len(attempts),
        "survived_bit_identical": survived,
        "during_a_save": sum(one["during_a_save"] for one in attempts),
        "tries": attempts,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=1) + "\n")
    return 0 if survived == len(attempts) else 1


if __name__ == "__main__":
    sys.exit(main())
