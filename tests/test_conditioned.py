"""The loop that sorts its own samples, on a tiny Llama."""

import pytest
import torch
from safetensors.torch import load_file

from alpacafarm_core.conditioning import Sorting
from alpacafarm_core.errors import ContractBroken
from alpacafarm_core.methods.quark import QuarkObjective
from alpacafarm_core.settings import Sampling, Training
from alpacafarm_core.train import conditioned
from alpacafarm_core.train.batches import padded
from alpacafarm_core.train.conditioned import Taught, chosen, enrol, lesson
from alpacafarm_core.train.engine import accumulate
from alpacafarm_core.train.forward import judged, response_divergences, response_logprobs
from alpacafarm_core.train.logps import divergences
from alpacafarm_core.train.models import grow, load_policy
from alpacafarm_core.train.pool import Pool
from alpacafarm_core.train.tokens import (
    Tokens,
    encode,
    reward_ids,
)
from tests.test_resume import EVERY_STEP, Killed, same_weights, stopped_after, untimed
from tests.test_training import EXACT
from tests.tiny import demonstrations

TRAINING = Training(learning_rate=3e-3, epochs=1, batch=8, max_length=256, schedule="constant")
QUARK = QuarkObjective(
    steps=3,
    rollouts=16,
    minibatch=4,
    gradient_steps=2,
    sampling=Sampling(temperature=1.0, max_tokens=12),
    training=TRAINING.replace(warmup=0.0),
)
TOKENS = QUARK.replace(sorting=Sorting(train_on="all", keep_pool=True))
EOS = 1


def pool(scores: list[float], ends: int = EOS) -> Pool:
    """A response of two tokens and its end to each of as many prompts."""
    rows = [Tokens([0, 10 + at], [20 + at, 30, ends]) for at in range(len(scores))]
    return Pool(rows, torch.tensor(scores), torch.ones(len(scores)).bool())


def test_the_exact_kl_of_a_hand_example():
    ours, theirs = torch.tensor([[0.7, 0.3]]).log(), torch.tensor([[0.5, 0.5]]).log()
    both = torch.arange(2), torch.arange(2)
    logprobs, kl, entropy = divergences(
        (ours, theirs), torch.tensor([1]), (torch.nn.Identity(), torch.nn.Identity()), both
    )
    assert logprobs.tolist() == pytest.approx([-1.203973])
    assert kl.tolist() == pytest.approx([0.082283], abs=1e-6)
    assert entropy.tolist() == pytest.approx([0.610864], abs=1e-6)


def test_the_kl_is_over_the_vocabulary_without_the_reward_tokens():
    ours = torch.tensor([[0.35, 0.15, 0.5]]).log()  # half of it on a token the reference lacks
    theirs = torch.tensor([[0.5, 0.5]]).log()
    heads = torch.nn.Identity(), torch.nn.Identity()
    plain = torch.arange(2), torch.arange(2)
    logprobs, kl, _ = divergences((ours, theirs), torch.tensor([1]), heads, plain)
    assert kl.tolist() == pytest.approx([0.082283], abs=1e-6)
    assert logprobs.tolist() == pytest.approx([-1.897120], abs=1e-6)


def test_in_slabs_the_kl_and_its_gradient_are_the_same():
    draw = torch.Generator().manual_seed(0)
    matrix, reference = (torch.randn(50, 8, generator=draw) for _ in range(2))
    hidden, other = (torch.randn(13, 8, generator=draw) for _ in range(2))
    targets, ids = torch.arange(13), torch.arange(48)

    def found(slab: int) -> tuple[torch.Tensor, torch.Tensor]:
        weight = matrix.clone().requires_grad_()
        heads = (lambda h: h @ weight.T, lambda h: h @ reference.T)
        each = divergences((hidden, other), targets, heads, (ids, ids), slab)
        sum(part.sum() for part in each).backward()
        return torch.stack(each), weight.grad

    for whole, slabs in zip(found(10**6), found(300), strict=True):
        torch.testing.assert_close(whole, slabs)


def test_a_policy_that_is_its_reference_has_no_kl_and_its_own_entropy(tiny):
    model = load_policy(tiny, EXACT).model
    batch = padded(encode(demonstrations(1), "output", load_policy(tiny, EXACT).tokenizer))
    with torch.no_grad():
        logprobs, kl, entropy = response_divergences((model, batch), (model, batch), ())
    plain = judged(model, batch)
    assert float(kl.abs().max()) < 1e-5
    torch.testing.assert_close(logprobs, plain.logprobs)
    torch.testing.assert_close(entropy, plain.entropies)


def test_by_default_the_best_quarter_is_learned_without_a_token(tiny):
    tokenizer = load_policy(tiny, EXACT).tokenizer
    found = pool([0.1, 0.9, 0.3, 0.5, 0.8, 0.2, 0.4, 0.6])
    taught = chosen(found, tokenizer, QUARK)
    assert taught == [Taught(found.rows[at], found.rows[at]) for at in (1, 4)]


def test_in_full_every_answer_is_learned_behind_the_token_of_its_quantile(tiny):
    loaded = load_policy(tiny, EXACT)
    grow(loaded, 4, seed=0)
    taught = chosen(pool([0.1, 0.9, 0.3, 0.5]), loaded.tokenizer, TOKENS)
    assert [one.told.prompt for one in taught] == [
        *([0, 387, 10], [0, 384, 11], [0, 386, 12], [0, 385, 13])
    ]
    assert all(one.plain.prompt == [0, 10 + at] for at, one in enumerate(taught))
    assert all(one.told.response[-1] == EOS for one in taught)


def test_an_unfinished_answer_counts_as_a_bad_one(tiny):
    tokenizer = load_policy(tiny, EXACT).tokenizer
    found = pool([0.9, 0.1, 0.2, 0.3])._replace(finished=torch.tensor([False, True, True, True]))
    assert chosen(found, tokenizer, QUARK)[0].plain == found.rows[3]
    free = QUARK.replace(sorting=Sorting(missing_eos=None))
    assert chosen(found, tokenizer, free)[0].plain == found.rows[0]


def gradients(course: conditioned.Course, taught: list[Taught]) -> dict[str, torch.Tensor]:
    rows = list(range(len(taught)))
    accumulate(course.engine, [rows], lesson(course, taught, rows))
    found = {name: p.grad.clone() for name, p in course.policy.model.named_parameters()}
    course.policy.model.zero_grad()
    return found


def test_alpacafarms_default_is_imitation_of_the_best_quarter_with_a_kl_term(tiny, scorer):
    course = enrol((tiny, scorer, None), QUARK, EXACT)
    taught = chosen(pool([0.1, 0.9, 0.3, 0.5, 0.8, 0.2, 0.4, 0.6]), course.policy.tokenizer, QUARK)
    found = gradients(course, taught)
    batch = padded([one.plain for one in taught])
    (-response_logprobs(course.policy.model, batch).sum() / 6).backward()
    # At the start policy and reference agree, and there the KL has no slope.
    for name, weight in course.policy.model.named_parameters():
        torch.testing.assert_close(found[name], weight.grad, atol=1e-6, rtol=1e-4)


def test_means_over_padding_only_shorten_the_step(tiny, scorer):
    taught = [Taught(row, row) for row in pool([0.1, 0.2]).rows]
    plain = gradients(enrol((tiny, scorer, None), QUARK, EXACT), taught)
    over = QUARK.replace(mean_over="positions")
    shorter = gradients(enrol((tiny, scorer, None), over, EXACT), taught)
    for name, gradient in plain.items():
        torch.testing.assert_close(shorter[name], gradient * 3 / 12, atol=1e-6, rtol=1e-4)


def test_the_reference_never_sees_a_token(tiny, scorer):
    course = enrol((tiny, scorer, None), TOKENS, EXACT)
    assert course.reference.config.vocab_size == 384
    assert course.policy.model.config.vocab_size == 388
    taught = chosen(pool([0.1, 0.9, 0.3, 0.5]), course.policy.tokenizer, TOKENS)
    with torch.no_grad():
        view = conditioned._seen(course, taught)
    plain = padded([one.plain for one in taught])
    assert not torch.isin(plain.ids, torch.arange(384, 388)).any()
    assert float(view.kl.mean()) > 0  # the policy sees one


@pytest.mark.parametrize(("objective", "saves"), [(QUARK, 1), (TOKENS, 2)])
def test_a_stopped_loop_ends_as_if_it_had_not_been(
    tiny, scorer, tmp_path, monkeypatch, objective, saves
):
    def run(name: str) -> dict:
        folders = (tiny, scorer, None)
        return conditioned.roll_out(
            folders, tmp_path / name, demonstrations(), objective, EVERY_STEP
        )

    whole = run("whole")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        stopped_after(patch, saves)
        run("stopped")
    assert untimed(run("stopped")) == untimed(whole)
    assert same_weights(tmp_path / "whole", tmp_path / "stopped")
    learned = [one["learned"] for one in whole["steps"]]
    assert learned == ([16, 32, 48] if objective.sorting.keep_pool else [4, 4, 4])


def test_it_ends_where_the_policy_leaves_its_reference(tiny, scorer, tmp_path):
    strict = QUARK.replace(kl_limit=1e-6, steps=3)
    with pytest.raises(ContractBroken, match="nats from the reference"):
        conditioned.roll_out((tiny, scorer, None), tmp_path / "out", demonstrations(), strict,
                             EXACT)  # fmt: skip


def test_a_policy_with_reward_tokens_is_a_folder_with_rows_for_them(tiny, scorer, tmp_path):
    conditioned.roll_out((tiny, scorer, None), tmp_path / "out", demonstrations(),
                         TOKENS.replace(steps=1), EXACT)  # fmt: skip
    assert len(load_file(tmp_path / "out" / "model.safetensors")["lm_head.weight"]) == 388
    assert reward_ids(load_policy(tmp_path / "out", EXACT).tokenizer) == [384, 385, 386, 387]
