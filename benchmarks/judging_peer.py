"""The other side of `benchmarks.judging`, run by the Python that has alpaca-eval 0.6.6.

    python benchmarks/judging_peer.py CONFIGS PAIRS CONCURRENCY

Prints one JSON line: rows a second, CPU milliseconds a row, rows with a preference.
"""

import json
import sys
import time

from alpaca_eval.annotators import PairwiseAnnotator


def main(configs: str, pairs: str, concurrency: int) -> None:
    """Annotate once few rows, to be warm, and then the rest."""
    with open(pairs) as file:
        rows = json.load(file)
    annotator = PairwiseAnnotator(annotators_config=configs, is_avoid_reannotations=False)
    annotator.annotate_pairs(rows[:16], num_procs=concurrency)
    wall, cpu = time.perf_counter(), time.process_time()
    found = annotator.annotate_pairs(rows[16:], num_procs=concurrency)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    judged = sum(row["preference"] in (1.0, 2.0) for row in found)
    figures = {"rate": len(found) / wall, "cpu": 1000 * cpu / len(found), "judged": judged}
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
