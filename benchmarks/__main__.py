"""`make bench`: the side-by-side benchmarks that run on this machine in a few minutes."""

import runpy
import sys

for name in ("engines", "judge_pool"):
    print(f"== {name}", flush=True)
    sys.argv = [name]
    runpy.run_module(f"benchmarks.{name}", run_name="__main__")
