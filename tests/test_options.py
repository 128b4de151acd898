"""Dotted flags become settings, and a wrong one is named."""

import pytest

from alpacafarm_core.errors import BadInput
from alpacafarm_core.methods.dpo import DPO
from alpacafarm_core.setup import Setup
from flows.options import dotted, settled


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
    source = settled(Setup(), dotted(words, ("setup",))["setup"], "setup").source
    assert source.name == "files"
    assert source.instructions.path == file
    assert len(source.instructions.digest) == 64


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--method.bta", "1"], "unknown field method.bta; did you mean beta?"),
        (["--method.beta", "-1"], "method.beta: Input should be greater than 0, not -1"),
        (["--method.beta"], "has no value"),
        (["--sampler.n", "1"], "unknown option '--sampler.n'"),
        (["beta"], "unknown option 'beta'"),
        (["--method.training.batch", "many"], "method.training.batch"),
    ],
)
def test_a_wrong_flag_is_named_with_the_mend(words, complaint):
    with pytest.raises(BadInput, match=complaint.replace("?", r"\?")):
        settled(DPO(), dotted(words, ("method",))["method"], "method")
