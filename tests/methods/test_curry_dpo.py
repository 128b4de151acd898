"""Curry-DPO: its stages, its controls, and their equal budgets."""

import polars as pl
import pytest

from alpacafarm_core.methods.curry_dpo import CurryDPO
from alpacafarm_core.methods.dpo import DPO
from alpacafarm_core.pairs import ranked
from alpacafarm_core.settings import Ranking, Sampling
from tests.methods import defaults_of, steps_of
from tests.paper_farm import START, PaperFarm
from tests.test_pairs import scored

FITTED = ["fit_reward(sft, preferences)", "share(instructions, 1, 3)", "generate(sft, share2)"]
RANKED = [*FITTED, "score(generate3, fit_reward1)", "rank(score4)"]
CURRICULUM = [*RANKED, "rank(score4)", "rank(score4)", "train(sft, rank5)"]


class Asked(PaperFarm):
    """Also writes down which places were ranked."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[Ranking] = []

    def rank(self, scored, ranking):
        self.places.append(ranking)
        return self.__getattr__("rank")(scored)


def places_of(**settings) -> list:
    farm = Asked()
    CurryDPO(**settings).optimise(farm, START)
    return [ranking.rejected for ranking in farm.places]


def test_each_stage_starts_from_the_last_which_is_its_reference():
    assert steps_of("curry_dpo") == [
        *CURRICULUM,
        "train(train8, rank6)",
        "train(train9, rank7)",
    ]


def test_the_best_is_preferred_to_the_worst_then_to_the_third_then_to_the_second():
    assert places_of() == [-1, 3, 2]


def test_control_with_the_first_policy_as_reference():
    assert steps_of("curry_dpo", refresh=False)[-2:] == [
        "train(train8, rank6, sft)",
        "train(train9, rank7, sft)",
    ]


def test_control_with_all_pairs_at_once():
    assert steps_of("curry_dpo", pooled=True) == [*RANKED, "train(sft, rank5)"]
    assert places_of(pooled=True) == [(-1, 3, 2)]


def test_control_from_hard_to_easy():
    assert places_of(rejected=(2, 3, -1)) == [2, 3, -1]


def test_control_with_the_easy_pair_only_refreshes_as_often():
    assert places_of(rejected=(-1, -1, -1)) == [-1, -1, -1]
    assert steps_of("curry_dpo", rejected=(-1, -1, -1)) == steps_of("curry_dpo")


def test_one_stage_is_dpo_on_best_over_worst():
    assert steps_of("curry_dpo", rejected=(-1,)) == [*RANKED, "train(sft, rank5)"]


RATED = scored(
    {"r2": 5.0, "r1": 4.0, "r3": 3.0, "r4": 2.0},
    {"x": 1.0, "y": 1.0, "z": 0.0, "w": -3.0},
)


def stages(rows: pl.DataFrame) -> list[pl.DataFrame]:
    return [ranked(rows, Ranking(rejected=place)) for place in (-1, 3, 2)]


def test_gaps_shrink_from_stage_to_stage_and_the_chosen_stays():
    gaps = [pairs["gap"].to_list() for pairs in stages(RATED)]
    assert gaps == [[3.0, 4.0], [2.0, 1.0], [1.0]]  # the tie of x and y makes no hard pair
    first = [pairs.filter(instruction="a")["output_1"].to_list() for pairs in stages(RATED)]
    assert first == [["r2"]] * 3


def test_the_curriculum_and_all_pairs_at_once_have_the_same_pairs():
    pooled = ranked(RATED, Ranking(rejected=(-1, 3, 2)))
    assert pooled.equals(pl.concat(stages(RATED)))


def test_three_pairs_of_a_third_of_the_prompts_are_as_many_as_dpo_has():
    method = CurryDPO.at("small")
    assert method.parts == len(method.rejected) == 3
    assert method.objective.training == DPO.at("small").training


def test_no_stages_are_refused():
    with pytest.raises(ValueError, match="at least 1 item"):
        CurryDPO(rejected=())


@pytest.mark.parametrize("place", [0, 1])
def test_a_rejected_place_that_is_not_below_the_best_is_refused(place):
    with pytest.raises(ValueError, match=f"rejected\n.*place {place} is not below the best"):
        CurryDPO(rejected=(-1, place))


def test_a_place_twice_is_refused_where_all_pairs_are_pooled():
    with pytest.raises(ValueError, match="has a place twice, and pooled counts a pair once"):
        CurryDPO(rejected=(-1, -1, -1), pooled=True)


def test_fewer_answers_than_places_are_refused():
    with pytest.raises(ValueError, match=r"sampling\.n 3 gives too few .* raise sampling\.n to 4"):
        CurryDPO(sampling=Sampling(n=3))
    assert CurryDPO(rejected=(-1, -1, -1), sampling=Sampling(n=2)).sampling.n == 2


def test_its_defaults_are_the_papers_where_they_were_found():
    ours = defaults_of("curry_dpo")
    fitting = {name for name in ours if name.startswith("fitting.")}
    found, unknown = "Pattnaik et al. 2024", "ours: the paper's come from a data set"
    usual = "ours: DPO's usual values, the paper's were not found"
    assert {name: ours[name] for name in ours.keys() - fitting} == {
        "rejected": ((-1, 3, 2), f"{found}: easy, medium, hard"),
        "pooled": (False, found),
        "refresh": (True, found),
        "parts": (1, "ours: one pass over all prompts"),
        "sampling.n": (4, f"{found}: four answers"),
        "sampling.temperature": (1.0, unknown),
        "sampling.top_p": (1.0, unknown),
        "sampling.max_tokens": (300, unknown),
        "objective.beta": (0.1, usual),
        "objective.training.learning_rate": (5e-7, usual),
        "objective.training.epochs": (1, usual),
        "objective.training.batch": (32, usual),
    }
