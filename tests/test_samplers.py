"""Both engines for real on a tiny Llama: equal answers, log-probabilities, weights taken over."""

from copy import deepcopy
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from alpacafarm_core.decoding import TransformersSampler, choose, uniforms
from alpacafarm_core.errors import WeightSyncFailed
from alpacafarm_core.machine import Machine
from alpacafarm_core.sampler import Batch, Sample, Sampler
from alpacafarm_core.settings import Lora, Sampling
from alpacafarm_core.train.lora import adapt, trainable
from alpacafarm_core.train.models import load_policy, save
from alpacafarm_core.weight_sync import Sum, check, differing
from tests.tiny import tiny_model

EXACT = Machine(device="cpu", precision="float32", engine="transformers", micro_batch=8)
EOS = 1
GREEDY, WARM = Sampling(temperature=0, max_tokens=24), Sampling(temperature=1.0, max_tokens=24)
IDS = [[0, *range(10 + n, 12 + 3 * n)] for n in range(1, 9)]
SEEDS = list(range(100, 100 + len(IDS)))


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model saved by us, with a tied head, the case in which a weight sync goes wrong unseen."""
    drawn = tiny_model(tmp_path_factory.mktemp("tiny"), tied=True)
    folder = tmp_path_factory.mktemp("policy")
    save(load_policy(drawn, EXACT), folder)
    return folder


@pytest.fixture(scope="module")
def loop(policy: Path) -> TransformersSampler:
    return TransformersSampler(load_policy(policy, EXACT).model, EOS)


@pytest.fixture(scope="module")
def vllm(policy: Path):
    pytest.importorskip("vllm")
    from alpacafarm_core.vllm_engine import VLLMSampler

    engine = VLLMSampler(policy, 200, EOS, EXACT)
    yield engine
    engine.close()


@pytest.fixture(params=["loop", "vllm"])
def engine(request: pytest.FixtureRequest) -> Sampler:
    return request.getfixturevalue(request.param)


def plainly(model, prompt: list[int], tokens: int) -> list[int]:
    """Greedy decoding as one would write it first: no cache, no batch, no padding."""
    ids = list(prompt)
    with torch.no_grad():
        while len(ids) < len(prompt) + tokens and ids[-1] != EOS:
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def ids_of(answers: list[Sample]) -> list[list[int]]:
    return [answer.ids for answer in answers]


def under(model, prompt: list[int], ids: list[int], temperature: float) -> torch.Tensor:
    """Log-probabilities of these ids after a prompt, from one plain forward pass."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
    logprobs = (logits / temperature).log_softmax(-1)
    return logprobs.gather(1, torch.tensor(ids)[:, None])[:, 0]


def learned(model, steps: int = 5):
    """The model after a few steps on one sentence."""
    rate = torch.optim.SGD(model.parameters(), lr=1.0)
    for _ in range(steps):
        ids = torch.tensor([[0, 30, 31, 32, 33, 34]])
        model(input_ids=ids, labels=ids).loss.backward()
        rate.step()
        rate.zero_grad()
    return model


def test_greedy_answers_are_those_of_plain_decoding(engine, policy):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(policy).eval()
    answers = engine.sample(IDS, GREEDY, SEEDS)
    assert ids_of(answers) == [plainly(model, prompt, 24) for prompt in IDS]
    for prompt, answer in zip(IDS, answers, strict=True):
        expected = under(model, prompt, answer.ids, 1.0)
        torch.testing.assert_close(torch.tensor(answer.logprobs), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 1.0), (1.0, 0.8), (1.3, 0.8)])
def test_log_probabilities_are_those_at_the_temperature_without_the_nucleus(
    engine, loop, temperature, top_p
):
    asked = Sampling(temperature=temperature, top_p=top_p, max_tokens=12)
    for prompt, answer in zip(IDS, engine.sample(IDS, asked, SEEDS), strict=True):
        expected = under(loop.model, prompt, answer.ids, temperature)
        torch.testing.assert_close(torch.tensor(answer.logprobs), expected, atol=1e-4, rtol=0)


def test_a_sample_depends_on_its_seed_and_not_on_its_neighbours(engine):
    together = ids_of(engine.sample(IDS, WARM, SEEDS))
    backwards = ids_of(engine.sample(IDS[::-1], WARM, SEEDS[::-1]))
    alone = [
        engine.sample([prompt], WARM, [seed])[0].ids
        for prompt, seed in zip(IDS, SEEDS, strict=True)
    ]
    assert together == backwards[::-1] == alone
    assert ids_of(engine.sample(IDS, WARM, [s + 1 for s in SEEDS])) != together


def test_an_answer_goes_on_from_its_own_ids_as_if_it_had_not_stopped(engine):
    whole = ids_of(engine.sample(IDS, GREEDY, SEEDS))
    half = ids_of(engine.sample(IDS, GREEDY.replace(max_tokens=10), SEEDS))
    unfinished = [n for n, ids in enumerate(half) if ids[-1] != EOS]
    stems = [IDS[n] + half[n] for n in unfinished]
    rest = ids_of(engine.sample(stems, GREEDY.replace(max_tokens=14), SEEDS[: len(stems)]))
    assert [half[n] + more for n, more in zip(unfinished, rest, strict=True)] == [
        whole[n] for n in unfinished
    ]
    assert unfinished


def test_siblings_share_the_reading_of_what_they_begin_with(vllm):
    from vllm import SamplingParams, TokensPrompt

    block = vllm.llm.llm_engine.vllm_config.cache_config.block_size
    stem = TokensPrompt(prompt_token_ids=[0, *[20 + n % 60 for n in range(block + 8)]])
    asked = SamplingParams(max_tokens=2, seed=1, detokenize=False)
    for _ in range(2):
        (answer,) = vllm.llm.generate([stem], asked, use_tqdm=False)
    assert answer.num_cached_tokens >= block


def test_a_stream_gives_each_batch_its_samples_in_order(engine):
    asked = WARM.replace(temperature=0.7, top_p=0.9)
    halves = [Batch(IDS[:3], SEEDS[:3]), Batch([], []), Batch(IDS[3:], SEEDS[3:])]
    found = list(engine.stream(iter(halves), asked))
    whole = [sample._replace(logprobs=None) for sample in engine.sample(IDS, asked, SEEDS)]
    assert found == [whole[:3], [], whole[3:]]


def test_a_stream_takes_in_only_a_few_batches_ahead(engine):
    taken: list[int] = []

    def endless():
        for number in count():
            taken.append(number)
            yield Batch([IDS[0]] * 64, [number] * 64)

    stream = engine.stream(endless(), WARM.replace(max_tokens=2))
    seen = [len(taken) for _ in zip(stream, range(20), strict=False)]
    assert max(held - number for number, held in enumerate(seen)) <= 13
    stream.close()


def test_equal_prompts_get_different_samples(engine):
    answers = engine.sample([IDS[0]] * 8, WARM, list(range(8)))
    assert len({tuple(a.ids) for a in answers}) == 8


def test_the_end_token_is_kept_and_ends_the_answer(engine):
    many = Sampling(temperature=2.0, max_tokens=64)
    answers = engine.sample([IDS[0]] * 64, many, list(range(64)))
    for answer in answers:
        assert (answer.finish_reason == "stop") == (answer.ids[-1] == EOS)
        assert EOS not in answer.ids[:-1] and len(answer.ids) <= 64
    assert {a.finish_reason for a in answers} == {"stop", "length"}


def test_any_of_several_tokens_may_end_an_answer_until_it_is_said_otherwise(engine):
    plain = engine.sample(IDS[:1], WARM, SEEDS[:1])[0]
    last = plain.ids[3]
    engine.ends = {EOS, last}
    try:
        ended = engine.sample(IDS[:1], WARM, SEEDS[:1])[0]
    finally:
        engine.ends = {EOS}
    assert ended.ids == plain.ids[: plain.ids.index(last) + 1] and ended.finish_reason == "stop"
    assert engine.sample(IDS[:1], WARM, SEEDS[:1])[0].ids == plain.ids


def test_new_weights_are_sampled_from_after_a_sync(vllm, policy):
    before = ids_of(vllm.sample(IDS, GREEDY, SEEDS))
    model = learned(load_policy(policy, EXACT).model)
    vllm.sync(model)
    after = vllm.sample(IDS, GREEDY, SEEDS)
    assert ids_of(after) != before
    assert ids_of(after) == [plainly(model, prompt, 24) for prompt in IDS]
    for prompt, answer in zip(IDS, after, strict=True):
        expected = under(model, prompt, answer.ids, 1.0)
        torch.testing.assert_close(torch.tensor(answer.logprobs), expected, atol=1e-4, rtol=0)


def test_adapters_are_taken_over_as_part_of_the_weights(vllm, policy):
    pytest.importorskip("peft")
    model = load_policy(policy, EXACT).model
    adapt(model, Lora(rank=4), seed=0)
    with torch.no_grad():
        for name, weight in trainable(model).items():
            weight.add_(0.3 * torch.ones_like(weight) if "lora_B" in name else 0.0)
    before = ids_of(vllm.sample(IDS, GREEDY, SEEDS))
    vllm.sync(model)
    after = ids_of(vllm.sample(IDS, GREEDY, SEEDS))
    assert after == [plainly(model, prompt, 24) for prompt in IDS] != before


@pytest.mark.parametrize(
    ("left_undone", "steps", "named"),
    [("repack_tied_head", 2, "lm_head.weight"), ("reload_weights", 3, "model.embed_tokens.weight")],
)
def test_a_sync_that_did_not_take_names_the_parameter(
    vllm, policy, monkeypatch, left_undone, steps, named
):
    call = vllm.llm.collective_rpc

    def careless(method: str, *args: Any, **kwargs: Any) -> Any:
        return None if method == left_undone else call(method, *args, **kwargs)

    model = learned(load_policy(policy, EXACT).model, steps)
    monkeypatch.setattr(vllm.llm, "collective_rpc", careless)
    with pytest.raises(WeightSyncFailed, match=f"{named} sums to .* ALPACAFARM_ENGINE"):
        vllm.sync(model)
    monkeypatch.undo()
    vllm.sync(model)


def test_weights_with_the_right_sums_in_the_wrong_places_are_noticed(vllm, policy, monkeypatch):
    model = load_policy(policy, EXACT).model
    vllm.sync(model)
    turned = deepcopy(model)
    with torch.no_grad():
        down = turned.model.layers[0].mlp.down_proj.weight
        down.copy_(down.flip(0))
    monkeypatch.setattr(vllm, "_reload", lambda *_: None)
    with pytest.raises(WeightSyncFailed, match="nats a token from the policy's"):
        vllm.sync(turned)


def test_sums_agree_whether_workers_hold_parts_or_copies():
    expected = {"proj": Sum(3.0, 1e-3), "norm": Sum(8.0, 1e-3), "elsewhere": Sum(1.0, 0.0)}
    assert differing([{"proj": 1.0, "norm": 8.0}, {"proj": 2.0, "norm": 8.0}], expected) is None
    stale = [{"proj": 1.0, "norm": 8.0}, {"proj": 2.1, "norm": 8.0}]
    assert differing(stale, expected) == "proj sums to 3.1, the policy's to 3"


def test_half_precision_is_allowed_a_wider_gap():
    check(None, 0.05, torch.bfloat16)
    with pytest.raises(WeightSyncFailed, match=r"0\.05 nats a token .* more than 0\.0002"):
        check(None, 0.05, torch.float32)
    with pytest.raises(WeightSyncFailed, match="nan"):
        check(None, float("nan"), torch.bfloat16)


def test_the_loop_samples_from_the_very_module_it_was_given(loop, policy):
    mine = load_policy(policy, EXACT).model
    sampler = TransformersSampler(loop.model, EOS)
    sampler.sync(mine)
    before = ids_of(sampler.sample(IDS, GREEDY, SEEDS))
    assert before == ids_of(loop.sample(IDS, GREEDY, SEEDS))
    learned(mine)
    assert ids_of(sampler.sample(IDS, GREEDY, SEEDS)) == [plainly(mine, p, 24) for p in IDS]
    assert ids_of(sampler.sample(IDS, GREEDY, SEEDS)) != before


class Dozing:
    """An engine on a GPU, as far as sleep goes; it never has anything to abort."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.llm_engine = self

    def get_num_unfinished_requests(self) -> int:
        return 0

    def abort_request(self, numbers: list[str]) -> None:
        assert not numbers

    def sleep(self, level: int) -> None:
        self.told.append(f"sleep {level}")

    def wake_up(self) -> None:
        self.told.append("wake")


def test_a_resting_engine_sleeps_on_a_gpu_until_something_is_asked_for(vllm):
    awake = ids_of(vllm.sample(IDS, GREEDY, SEEDS))
    vllm.rest()  # on a CPU the next demand would wait for ever, were it to sleep
    assert ids_of(vllm.sample(IDS, GREEDY, SEEDS)) == awake
    on_gpu = object.__new__(type(vllm))
    on_gpu.llm, on_gpu.on_gpu, on_gpu.is_asleep = Dozing(), True, False
    on_gpu.rest()
    on_gpu.rest()
    assert list(on_gpu.stream([], WARM)) == []
    assert on_gpu.llm.told == ["sleep 1", "wake"]


def test_the_loop_samples_the_models_distribution():
    torch.manual_seed(0)
    logits = torch.randn(1, 12).expand(40_000, 12)
    chances = uniforms(torch.arange(40_000).numpy().astype("uint64"), 3)
    drawn = choose(logits, Sampling(temperature=0.7), chances).bincount(minlength=12) / 40_000
    expected = (logits[0] / 0.7).softmax(-1)
    torch.testing.assert_close(drawn, expected, atol=0.01, rtol=0)
    assert float(chances.mean()) == pytest.approx(0.5, abs=0.01)


def test_a_nucleus_keeps_the_fewest_tokens_that_hold_top_p():
    logits = torch.tensor([0.5, 0.1, 0.3, 0.1]).log().expand(1000, 4)
    chances = torch.arange(1000, dtype=torch.float64) / 1000
    kept = {p: choose(logits, Sampling(top_p=p, temperature=1), chances) for p in (0.4, 0.5, 0.7)}
    assert {p: set(tokens.tolist()) for p, tokens in kept.items()} == {
        0.4: {0}, 0.5: {0}, 0.7: {0, 2},
    }  # fmt: skip
    assert int((kept[0.7] == 0).sum()) == pytest.approx(625, abs=1)


def test_both_engines_never_draw_what_is_forbidden_and_tell_its_chances_all_the_same(
    engine, policy
):
    prompts, most = [IDS[0]] * 4, WARM.replace(max_tokens=4)
    model = load_policy(policy, EXACT).model
    likely = sorted({one.ids[0] for one in engine.sample(prompts, most, [1, 2, 3, 4])})
    engine.never = likely
    try:
        answers = engine.sample(prompts, most, [1, 2, 3, 4])
    finally:
        engine.never = []
    assert not {token for one in answers for token in one.ids} & set(likely)
    for one in answers:
        told = torch.tensor(one.logprobs)
        torch.testing.assert_close(told, under(model, IDS[0], one.ids, 1.0), atol=2e-4, rtol=0)
