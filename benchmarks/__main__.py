"""`make bench`: the side-by-side benchmarks that run on this machine in a few minutes."""

import subprocess
import sys

status = 0
for name in ("engines", "generation", "judge_pool", "judging", "faults", "planted_bugs"):
    print(f"== {name}", flush=True)
    # Each in a process of its own: some leave with a status.
    status |= subprocess.run([sys.executable, "-m", f"benchmarks.{name}"]).returncode
sys.exit(status)
