"""The other side of `benchmarks.length_control`, run by the Python that has alpaca-eval 0.6.6.

    python benchmarks/length_control_peer.py FOLDER

FOLDER holds calibration.csv and a JSON file of annotations a model. Prints one JSON document: by
model the rate, its error, C, and seconds of wall and CPU; and how scikit-learn's fit does at C = 1.
"""

import json
import sys
import time
from pathlib import Path

import pandas as pd
from alpaca_eval.metrics import glm_winrate

CHOSEN = []


def main(folder: Path) -> None:
    """Rate every model twice: with C cross-validated, and at C = 1."""
    glm_winrate.hf_hub_download = lambda **_: str(folder / "calibration.csv")
    fitted = glm_winrate.fit_LogisticRegressionCV
    at_one = {"n_splits": 0, "C": 1.0, "tol": 1e-10, "max_iter": 100000}

    def remembered(*args, **options):
        model = fitted(*args, **options)
        CHOSEN.append(float(getattr(model, "C_", [0.0])[0]))
        return model

    glm_winrate.fit_LogisticRegressionCV = remembered
    v1 = glm_winrate.GLM_INFO["length_controlled_v1"]
    found = {}
    for path in sorted(folder.glob("*.json")):
        frame = pd.DataFrame(json.loads(path.read_text()))
        wall, cpu = time.perf_counter(), time.process_time()
        rate = rated(frame)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        fixed = rated(frame, glm_info=v1 | {"kwargs": at_one})
        found[path.stem] = {
            "rate": rate["length_controlled_winrate"],
            "error": rate["lc_standard_error"],
            "c": CHOSEN[-2],
            "wall": wall,
            "cpu": cpu,
            "at_one": fixed["length_controlled_winrate"],
        }
    print(json.dumps(found))


def rated(frame, **options):
    """The metric alone: nothing is written."""
    return glm_winrate.get_length_controlled_winrate(
        frame.copy(), save_weights_dir=None, is_warn_extreme_changes=False, **options
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
