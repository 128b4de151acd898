"""AlpacaFarm's own choices, where they are asked for."""

import json
import shutil
from typing import Any

import pytest
import torch

from alpacafarm_core.errors import BadInput
from alpacafarm_core.methods import METHODS
from alpacafarm_core.methods.quark import QuarkObjective
from alpacafarm_core.proximal import ProximalObjective, Shaping
from alpacafarm_core.settings import Fitting, Sampling
from alpacafarm_core.train import rl
from alpacafarm_core.train.models import load_policy, save
from alpacafarm_core.train.rollouts import imagined
from alpacafarm_core.train.tokens import Tokens, encode, prompt_texts
from alpacafarm_core.weights import BestOf
from tests.paper_farm import START, PaperFarm
from tests.test_training import EXACT
from tests.tiny import demonstrations


class Curious(PaperFarm):
    """A paper farm that keeps the settings it was asked with."""

    def __getattr__(self, verb: str) -> Any:
        ask = super().__getattr__(verb)

        def keep(*arguments: Any, **named: Any) -> Any:
            self.__dict__.setdefault("given", {})[verb] = arguments[-1]
            return ask(*arguments, **named)

        return keep


def given(name: str, verb: str, **settings: Any) -> Any:
    """The settings with which a method asks for a step."""
    farm = Curious()
    METHODS[name](**settings).optimise(farm, START)
    return farm.given[verb]


def test_ppo_clamps_the_kl_forgives_endless_answers_and_counts_padding():
    asked = given("ppo", "roll_out", compat="alpacafarm")
    assert asked.kl.estimator == "clamped"
    assert asked.shaping == Shaping(missing_eos=None, over="positions", together=64)
    assert asked.averaging == "constant"
    assert given("ppo", "roll_out") == ProximalObjective()


def test_quark_forgives_endless_answers_and_counts_padding():
    asked = given("quark", "roll_out", compat="alpacafarm")
    assert (asked.sorting.missing_eos, asked.mean_over) == (None, "positions")
    assert given("quark", "roll_out") == QuarkObjective()


@pytest.mark.parametrize("name", ["ppo", "quark", "grpo", "rloo", "reinforce_pp"])
def test_how_the_reward_model_is_fitted_is_no_part_of_what_the_policy_is_trained_for(name):
    other = Fitting(held_out=7)
    assert given(name, "roll_out", fitting=other) == given(name, "roll_out")
    assert given(name, "fit_reward", fitting=other) == other


def test_best_of_n_and_expert_iteration_draw_from_a_nucleus():
    assert given("expert_iteration", "generate", compat="alpacafarm").top_p == 0.9
    assert given("expert_iteration", "generate").top_p == 1.0
    policy = METHODS["best_of_n"](compat="alpacafarm").optimise(PaperFarm(), START)
    assert isinstance(policy.decode, BestOf) and policy.decode.top_p == 0.9


def test_whitening_over_padding_counts_places_that_are_empty():
    values, mask = torch.tensor([[2.0, 4.0, 9.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    found = rl.whiten(values, mask, keep_mean=True, longest=4)
    # Of 2, 4, 0 and 0 the mean is 1.5 and the variance 20 / 4 - 1.5 ** 2.
    assert found[0].tolist() == pytest.approx([0.5 / 2.75**0.5 + 1.5, 2.5 / 2.75**0.5 + 1.5, 0])
    plain = rl.whiten(values, mask, keep_mean=True)
    assert plain[0].tolist() == pytest.approx([2.0, 4.0, 0.0])


def test_without_padding_the_padded_whitening_is_the_plain_one():
    values = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(4, 6)
    one, other = rl.whiten(values, mask, False), rl.whiten(values, mask, False, longest=6)
    torch.testing.assert_close(one, other)


def test_responses_may_be_whitened_in_groups_of_their_own():
    rollouts = imagined([Tokens([0], [5, 6])] * 16)
    scores = torch.cat([torch.arange(8.0), 100 * torch.arange(8.0)])
    rollouts = rollouts._replace(scores=scores)
    sampling = Sampling(max_tokens=2)
    objective = ProximalObjective(shaping=Shaping(whiten=False, together=8), sampling=sampling)
    apart = objective.advantages(rollouts, 0.0).advantages
    torch.testing.assert_close(apart[:8], apart[8:], atol=1e-4, rtol=0)
    whole = objective.replace(shaping=Shaping(whiten=False)).advantages(rollouts, 0.0).advantages
    assert float(whole[:8].abs().max()) < float(whole[8:].abs().max()) / 2


def test_a_model_with_prompts_of_its_own_is_asked_in_them_and_hands_them_on(tiny, tmp_path):
    folder, rows = shutil.copytree(tiny, tmp_path / "own"), demonstrations(1)
    file = folder / "tokenizer_config.json"
    templates = {
        "prompt_noinputs": "Q: {instruction}\nA:",
        "prompt_inputs": "Q: {instruction} ({input})\nA:",
    }
    file.write_text(json.dumps(json.loads(file.read_text()) | {"prompt_templates": templates}))
    loaded = load_policy(folder, EXACT)
    expected = ["Q: Name a red fruit.\nA:", "Complete the task that follows."]
    assert prompt_texts(rows, loaded.tokenizer)[0] == expected[0]
    save(loaded, tmp_path / "next")
    tokenizer = load_policy(tmp_path / "next", EXACT).tokenizer
    assert prompt_texts(rows, tokenizer) == prompt_texts(rows, loaded.tokenizer)
    assert tokenizer.decode(encode(rows, "output", tokenizer)[0].prompt) == expected[0]
    assert prompt_texts(rows) != prompt_texts(rows, tokenizer)


def test_prompts_without_a_place_for_the_instruction_are_refused(tiny):
    tokenizer = load_policy(tiny, EXACT).tokenizer
    tokenizer.init_kwargs["prompt_templates"] = {"prompt_noinputs": "Say something."}
    with pytest.raises(BadInput, match=r"prompt_noinputs is missing or has no \{instruction\}"):
        prompt_texts(demonstrations(1), tokenizer)
