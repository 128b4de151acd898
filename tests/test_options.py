"""Dotted flags become settings, a wrong one is named; and data is printed as it stands."""

import pytest

from alpacafarm_core.errors import BadInput
from alpacafarm_core.methods.dpo import DPO
from alpacafarm_core.methods.ppo import PPO
from alpacafarm_core.methods.quark import Quark
from alpacafarm_core.setup import Setup
from flows.options import dotted, settled
from flows.printing import show_rows


def set_up(*words: str) -> Setup:
    """The setup after some flags."""
    return settled(Setup(), dotted(words, ("setup",))["setup"], "setup")


def test_flags_reach_nested_fields():
    fields = dotted(
        ["--method.beta", "0.2", "--method.training.learning_rate=1e-4", "--setup.seed", "3"],
        ("setup", "method"),
    )
    method = settled(DPO.at("small"), fields["method"], "method")
    assert method.beta == 0.2
    assert method.training.learning_rate == 1e-4
    assert method.training.batch == DPO.at("small").training.batch
    assert settled(Setup(), fields["setup"], "setup") == Setup(seed=3)


def test_a_source_of_another_kind_replaces_the_first(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"instruction": "Say hello", "output": "Hello."}\n')
    words = ["--setup.source.name", "files"]
    for field in ("instructions", "demonstrations"):
        words += [f"--setup.source.{field}", str(file)]
    source = set_up(*words).source
    assert source.name == "files"
    assert source.instructions.path == file
    assert len(source.instructions.digest) == 64


@pytest.mark.parametrize(
    "text", ["2024", "nan", "1e3", "true", "null", "2024-99-99", "[", "{a: b}"]
)
def test_a_text_is_taken_as_it_stands(text):
    assert set_up("--setup.base", text).base == text


def test_a_file_may_be_called_by_a_number(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "2024").write_text("rows")
    words = ["--setup.source.name=files", "--setup.source.share_eval=0.25"]
    words += ["--setup.source.instructions=2024", "--setup.source.demonstrations=2024"]
    source = set_up(*words, "--setup.source.reference=007").source
    assert str(source.instructions.path) == "2024"
    assert (source.reference, source.share_eval) == ("007", 0.25)


def test_a_number_is_read_as_a_person_means_it():
    assert set_up("--setup.seed", "010").seed == 10
    assert set_up("--setup.source.seed", "1e3").source.seed == 1000
    changes = {
        "objective": {"kl": {"target": "6"}, "shaping": {"whiten": "no", "missing_eos": "~"}}
    }
    objective = settled(PPO(), changes, "method").objective
    assert (objective.kl.target, objective.shaping.whiten) == (6, False)
    assert objective.shaping.missing_eos is None


def test_fields_may_be_given_together_as_a_mapping():
    start = DPO.at("small")
    method = settled(start, {"training": "{epochs: 7, schedule: linear}"}, "method")
    assert method.training == start.training.replace(epochs=7, schedule="linear")


@pytest.mark.parametrize(
    "words",
    [
        ["--setup.source", "files"],
        ["--setup.source", "files", "--setup.source.instructions", "x"],
        ["--setup.source.instructions", "x", "--setup.source", "files"],
    ],
)
def test_a_source_is_called_by_its_name(words):
    with pytest.raises(BadInput, match=r"use --setup\.source\.name files"):
        set_up(*words)


def test_brackets_and_colons_in_data_are_printed_as_they_stand(capsys):
    show_rows([{"[b]text": "[/INST] hi [red]you[/red] :smile:", "n": 1}])
    said = capsys.readouterr().out
    assert "[b]text" in said and "[/INST] hi [red]you[/red] :smile:" in said


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--method.bta", "1"], "unknown field method.bta; did you mean beta?"),
        (["--method.beta", "-1"], "method.beta: Input should be greater than 0, not -1"),
        (["--method.beta"], "has no value"),
        (["--sampler.n", "1"], "unknown option '--sampler.n'"),
        (["beta"], "unknown option 'beta'"),
        (["--method.training.batch", "many"], "method.training.batch"),
        (["--method.training.batch", "true"], "method.training.batch"),
        (["--method.training", "many"], "method.training has fields of its own"),
        (["--method.beta", "nan"], "method.beta: Input should be .* finite"),
        (["--method.beta", "[" * 10_000], "method.beta: Input should be a valid number"),
    ],
)
def test_a_wrong_flag_is_named_with_the_mend(words, complaint):
    with pytest.raises(BadInput, match=complaint.replace("?", r"\?")):
        settled(DPO(), dotted(words, ("method",))["method"], "method")


def test_settings_that_do_not_go_together_are_refused_in_one_line_without_all_the_others():
    words = ["--method.objective.rollouts", "3"]
    with pytest.raises(BadInput) as refused:
        settled(Quark.at("small"), dotted(words, ("method",))["method"], "method")
    assert str(refused.value) == (
        "method.objective: rollouts 3 cannot be cut into 4 quantiles: raise rollouts or lower "
        "sorting.quantiles"
    )
