"""Settings: forms a browser accepts, defaults of the papers, refusals with the field's name."""

from typing import get_args

import pytest
from pydantic import ValidationError

from alpacafarm_core.errors import BadInput
from alpacafarm_core.machine import Machine
from alpacafarm_core.methods import METHODS
from alpacafarm_core.methods.best_of_n import BestOfN
from alpacafarm_core.methods.dpo import DPO
from alpacafarm_core.methods.sft import SFT
from alpacafarm_core.proximal import KLPenalty, ProximalObjective
from alpacafarm_core.settings import Fitting, Looking, Lora, Ranking, Sampling, Training
from alpacafarm_core.setup import Setup
from alpacafarm_core.values import Value


def test_a_form_says_bounds_of_real_numbers_in_words_and_keeps_those_of_whole_ones():
    fields = Setup.model_json_schema()["properties"]
    assert "minimum" not in fields["flip"]
    assert fields["flip"]["description"] == "Share of labels turned round (from 0 up to 0.5)"
    assert fields["seed"]["minimum"] == 0
    with pytest.raises(ValidationError, match="flip"):
        Setup(flip=0.6)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_field_of_a_form_says_what_it_is(name):
    for field, said in METHODS[name].model_json_schema()["properties"].items():
        assert field == "name" or said.get("description") or "$ref" in said, field


def nested(kind: type[Value]) -> set[type[Value]]:
    """A class of settings and every one held by it, however often and in whatever circle."""
    found: set[type[Value]] = set()
    left = [kind]
    while left:
        found.add(at := left.pop())
        held = [field.annotation for field in at.model_fields.values()]
        leaves = [leaf for each in held for leaf in (each, *get_args(each))]
        kinds = {leaf for leaf in leaves if isinstance(leaf, type) and issubclass(leaf, Value)}
        left += kinds - found
    return found


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_setting_says_in_at_most_eight_words_what_it_is(name):
    for kind in nested(METHODS[name]) | {Looking, Ranking}:
        for field, told in kind.model_fields.items():
            said = (told.description or "").split()
            assert field == "name" or 1 <= len(said) <= 8, f"{kind.__name__}.{field}: {said}"


def test_the_defaults_are_alpacafarms():
    assert DPO().training.learning_rate == 1e-6 and DPO().beta == 0.1 and DPO().training.batch == 64
    assert SFT().training.learning_rate == 2e-5 and SFT().training.epochs == 3
    assert Fitting().training.learning_rate == 3e-6 and Fitting().training.batch == 16
    assert BestOfN().n == 16 and BestOfN().temperature == 1.0
    assert KLPenalty().coef == 0.0067
    assert Setup(scale="paper").sizes.eval == 805 and Setup(scale="paper").sizes.sft == 10_000


@pytest.mark.parametrize("wrong", [{"n": 0}, {"temperature": -1}, {"top_p": 0}, {"m": 1}])
def test_what_is_out_of_bounds_or_unknown_is_refused_by_name(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Sampling(**wrong)


def test_nan_is_no_setting():
    with pytest.raises(ValidationError, match="finite"):
        Sampling(temperature=float("nan"))


def test_the_machine_is_what_its_variables_say_and_others_are_left_alone(monkeypatch):
    for name, value in {"MICRO_BATCH": "8", "DEADLINE": "", "STORE": "somewhere"}.items():
        monkeypatch.setenv(f"ALPACAFARM_{name}", value)
    assert Machine.here().micro_batch == 8
    assert Machine.here().deadline == Machine().deadline


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("MICRO_BATCH", "abc", "Input should be a valid integer.* or unset it for 32"),
        ("MICRO_BATCH", "0", "Input should be greater than or equal to 1"),
        ("ENGINE", "vlm", "Input should be 'auto', 'vllm' or 'transformers'.* for auto"),
        ("DEADLINE", "inf", "Input should be a finite number"),
        ("GPUS", "foo", "Value error, give numbers, as 0,1"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named_in_one_line(monkeypatch, name, value, allowed):
    monkeypatch.setenv(f"ALPACAFARM_{name}", value)
    with pytest.raises(BadInput, match=f"^ALPACAFARM_{name}='{value}': {allowed}"):
        Machine.here()


@pytest.mark.parametrize("name", Machine.model_fields)
def test_every_field_of_the_machine_is_set_by_a_variable(name, monkeypatch):
    words = {"device": "cpu", "precision": "bfloat16", "engine": "vllm", "gpus": "0,1"}
    numbers = {bool: "yes", int: "3", float: "2.5"}
    kind = Machine.model_fields[name].annotation
    given = words.get(name) or numbers.get(kind, "hosts" if kind is str else "yes")
    monkeypatch.setenv(f"ALPACAFARM_{name.upper()}", given)
    assert getattr(Machine.here(), name) != Machine.model_fields[name].default


def test_a_stage_of_deepspeed_is_0_to_3(monkeypatch):
    monkeypatch.setenv("ALPACAFARM_ZERO", "4")
    with pytest.raises(BadInput, match=r"ALPACAFARM_ZERO='4'.*less than or equal to 3"):
        Machine.here()
    assert (Machine().stage(), Machine(processes=2).stage(), Machine(offload=True).stage()) == (
        0, 2, 2,
    )  # fmt: skip


def test_a_gpu_that_is_not_there_is_refused_at_the_door(monkeypatch):
    monkeypatch.setattr("alpacafarm_core.machine._has_gpu", lambda: False)
    with pytest.raises(BadInput, match="ALPACAFARM_DEVICE=cuda: no GPU here"):
        Machine(device="cuda").check()


def test_adapters_on_one_base_leave_the_critic_one_place_to_start():
    with pytest.raises(ValidationError, match=r"set critic\.init to policy"):
        ProximalObjective(training=Training(lora=Lora()))
