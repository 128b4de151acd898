"""The science of AlpacaFarm, without Prefect.

Read in this order: values, artifacts, weights, settings, objective, farm, method, methods/*; then
what they stand on: prompts, panel, annotate, tally, search, train/{logps,rl}; then the edges:
store, sources, ledger, llm, generate, reward, train/{job,offline,online}; and `world/`.
"""

import os

# A thread that waits must yield its core: with OpenMP's spinning, one busy neighbour on two cores
# slowed training to a fortieth of its rate (docs/log.md). Read by OpenMP when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
