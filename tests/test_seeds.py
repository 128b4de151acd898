"""A leaderboard over several seeds."""

from importlib.util import find_spec

import polars as pl
import pytest

from alpacafarm_core.errors import BadInput
from alpacafarm_core.setup import Setup
from flows.seeds import refuse_loose, seeds

SMOKE = Setup(scale="smoke")


def test_a_cap_that_no_single_process_could_hold_is_refused():
    refuse_loose("here", 1.0)
    refuse_loose("ray", None, None)
    for caps in ((1.0, None), (None, 0.0)):
        with pytest.raises(BadInput, match="a cap is held by one process"):
            refuse_loose("ray", *caps)


@pytest.mark.slow
@pytest.mark.parametrize(
    "workers",
    [
        "here",
        pytest.param(
            "ray",
            marks=[
                pytest.mark.skipif(find_spec("prefect_ray") is None, reason="needs the extra ray"),
                pytest.mark.filterwarnings("default"),
            ],
        ),
    ],
)
def test_each_seed_has_a_board_and_no_two_share_their_rows(prefect, store, workers):
    boards = seeds(["sft"], SMOKE, seeds=2, workers=workers)
    rows = [store.read(board) for board in boards]
    assert [set(each["model"]) for each in rows] == [{"base", "sft"}] * 2
    assert not rows[0].equals(rows[1])
    assert isinstance(rows[0], pl.DataFrame)
