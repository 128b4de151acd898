"""alpaca_eval's evaluator folders: loaded as they are, asked over HTTP, read by their parsers."""

import hashlib
import os
import random
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from alpacafarm_core import endpoints
from alpacafarm_core.draws import draws
from alpacafarm_core.errors import BadInput, Missing, NotOpenAI
from alpacafarm_core.panel import load
from alpacafarm_core.parsers import Scan
from alpacafarm_core.templates import Example

BLOCK = "# {instruction}\n<first>{output_1}</first>\n<second>{output_2}</second>\n"
PROMPT = f"<|im_start|>user\n{BLOCK}<|im_end|>"
BARE = {"outputs_to_match": {1: r"(?:^|\n)\(a\)", 2: r"(?:^|\n)\(b\)"}}
JUDGE: dict[str, Any] = {
    "prompt_template": "mine/prompt.txt",
    "fn_completions": "openai_completions",
    "completions_kwargs": {"model_name": "gpt-4", "max_tokens": 50, "temperature": 0},
    "completion_parser_kwargs": BARE,
}

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Writes an evaluator folder; what is asked overrides fields of its one judge."""
    for name in ("OPENAI_API_BASE", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)

    def made(prompt: str = PROMPT, pool: dict[str, Any] | None = None, **changes: Any) -> Path:
        folder = tmp_path / "evaluators_configs" / "mine"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "prompt.txt").write_text(prompt)
        asked = JUDGE["completions_kwargs"] | changes.pop("completions_kwargs", {})
        judge = JUDGE | {"completions_kwargs": asked} | changes
        (folder / "configs.yaml").write_text(yaml.safe_dump(pool or {"mine": judge}))
        return folder

    return made


def test_a_folder_loads_with_what_alpaca_eval_takes_for_granted(make: Make) -> None:
    (judge,) = (panel := load(make(), seed=3)).annotators
    assert (panel.name, panel.order, panel.draws, panel.seed) == (
        "mine",
        "random",
        "alpaca_eval",
        3,
    )
    assert (judge.name, judge.model, judge.api, judge.batch) == ("mine", "gpt-4", "chat", 1)
    assert (judge.prompt, judge.prompt_with_input) == (PROMPT, PROMPT)
    assert (judge.temperature, judge.top_p, judge.max_tokens) == (0, 1, 50)
    assert judge.endpoint == "https://api.openai.com/v1"
    assert judge.answer == Scan(patterns=BARE["outputs_to_match"])
    assert judge.price_per_1k_tokens is None
    bare = {"prompt_template": "mine/prompt.txt", "completion_parser_kwargs": BARE}
    unsaid = {"mine": bare | {"completions_kwargs": {"model_name": "m"}}}
    (other,) = load(make(pool=unsaid)).annotators
    assert (other.temperature, other.max_tokens) == (0.7, 2048)


def test_several_names_are_a_pool(make: Make) -> None:
    panel = load(make(pool={"one": JUDGE, "two": JUDGE | {"completion_key": "completions"}}))
    assert [each.name for each in panel.annotators] == ["one", "two"]


def test_a_file_may_have_any_name_and_a_prompt_may_stand_in_it(make: Make) -> None:
    folder = make(prompt_template=PROMPT)
    (folder / "configs.yaml").rename(folder / "judge.yaml")
    panel = load(folder / "judge.yaml")
    assert (panel.name, panel.annotators[0].prompt) == ("judge", PROMPT)


def test_a_batch_is_filled_up_as_theirs_is(make: Make) -> None:
    (judge,) = load(make(f"<|im_start|>user\n{BLOCK * 2}<|im_end|>", batch_size=2)).annotators
    assert (judge.batch, judge.pads) == (2, True)


@pytest.mark.parametrize(
    ("model", "said", "api"),
    [
        ("gpt-4", {}, "chat"),
        ("gpt-3.5-turbo", {}, "chat"),
        ("gpt-3.5-turbo-instruct", {}, "completions"),
        ("text-davinci-003", {}, "completions"),
        ("gpt-3", {}, "completions"),
        ("Llama-3-70B-Instruct", {}, "chat"),
        ("my-instruct", {"requires_chatml": True}, "chat"),
        ("my-model", {"requires_chatml": False}, "completions"),
    ],
)
def test_whether_a_model_chats_is_in_its_name_unless_it_is_said(
    make: Make, model: str, said: dict[str, bool], api: str
) -> None:
    (judge,) = load(make(completions_kwargs={"model_name": model, **said})).annotators
    assert judge.api == api


def test_what_reaches_the_server_is_kept_and_what_steers_their_machinery_is_not(
    make: Make,
) -> None:
    asked = {
        "client_kwargs": {"base_url": "http://localhost:8000/v1", "timeout": 9},
        "tools": [{"type": "function"}],
        "extra_body": {"top_k": 5},
        "price_per_token": "9e-7",
        "num_procs": 7,
        "is_strip": True,
        "top_p": None,
    }
    left_out = {"is_shuffle": False, "pretty_name": "Mine"}
    steps = {"ChainOfThoughtProcessor": {}, "JsonKeysToColumnProcessor": {"json_keys_to_keep": []}}
    (judge,) = load(
        make(completions_kwargs=asked, processors_to_kwargs=steps, **left_out)
    ).annotators
    assert judge.endpoint == "http://localhost:8000/v1"
    assert judge.body() == {"tools": [{"type": "function"}], "top_k": 5}
    assert (judge.price_per_1k_tokens, judge.top_p) == (pytest.approx(9e-4), 1.0)


def test_the_environment_names_the_endpoint_that_a_folder_leaves_open(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://second/v1")
    assert load(make()).endpoint == "http://second/v1"
    monkeypatch.setenv("OPENAI_API_BASE", "http://first/v1")
    assert load(make()).endpoint == "http://first/v1"
    own = {"client_kwargs": {"base_url": "http://own/v1"}}
    assert load(make(completions_kwargs=own)).endpoint == "http://own/v1"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"batchsize": 2}, r"mine: batchsize: 2 is nothing that is done here; take it out or mend"),
        ({"completions_kwargs": {"temprature": 1}}, r"completions_kwargs\.temprature"),
        ({"completions_kwargs": {"is_strip": False}}, r"completions_kwargs\.is_strip: False"),
        ({"completions_kwargs": {"openai_api_keys": ["s"]}}, r"openai_api_keys would stand in f"),
        ({"completions_kwargs": {"client_kwargs": {"api_key": "s"}}}, r"client_kwargs\.api_key w"),
        ({"completions_kwargs": {"max_tokens": [1, 2]}}, r"annotators\.0\.max_tokens"),
        ({"pool": {"one": JUDGE | {"completions_kwargs": 5}}}, "completions_kwargs is no mapping"),
        ({"processors_to_kwargs": {"Own": {}}}, r"processors_to_kwargs\.Own"),
        ({"fn_completion_parser": "my_parser"}, "no parser my_parser; there are regex_parser, "),
        ({"completion_parser_kwargs": {"patterns": {}}}, r"completion_parser_kwargs\.patterns"),
        ({"completion_key": "completions_all"}, "regex_parser reads completion_key completions;"),
        ({"random_seed_column": ["dataset"]}, r"order_by\.0"),
        ({"prompt_template": "mine/other.txt"}, r"no template .*other\.txt"),
        ({"batch_size": 2}, "does not show 2 examples"),
        ({"pool": {"one": JUDGE, "two": 5}}, "two is no mapping"),
        (
            {"pool": {"one": {"prompt_template": PROMPT}}},
            r"one has no completions_kwargs\.model_name",
        ),
        (
            {"pool": {"a": JUDGE, "b": JUDGE | {"is_randomize_output_order": False}}},
            "differ within",
        ),
        ({"prompt": f"Be fair.\n{PROMPT}"}, "'Be fair.' outside its turns"),
        ({"prompt": PROMPT.replace("user", "system name=x")}, "outside its turns"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(
    make: Make, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(BadInput, match=says):
        load(make(**changes))


def test_another_protocol_is_refused_by_its_name(make: Make) -> None:
    with pytest.raises(NotOpenAI, match="mine asks by anthropic_completions; only openai_"):
        load(make(fn_completions="anthropic_completions"))


def test_a_folder_without_configs_is_no_panel(tmp_path: Path) -> None:
    with pytest.raises(Missing, match=r"or of a folder with configs\.yaml"):
        load(tmp_path)


def test_log_probabilities_are_asked_for_where_they_are_read(make: Make) -> None:
    weighted = {
        "fn_completion_parser": "logprob_parser",
        "completion_parser_kwargs": {"numerator_token": "m", "denominator_tokens": ["m", "M"]},
        "completion_key": "completions_all",
    }
    asked = {"logprobs": True, "top_logprobs": 5, "max_tokens": 1}
    (judge,) = load(make(completions_kwargs=asked, **weighted)).annotators
    assert judge.top_logprobs == 5
    (older,) = load(make(completions_kwargs={"logprobs": 4}, **weighted)).annotators
    assert older.top_logprobs == 4
    with pytest.raises(BadInput, match="asks for none; set top_logprobs to 5"):
        load(make(completions_kwargs={"logprobs": True}, **weighted))


def test_the_order_can_be_seeded_by_other_columns_sorted_by_name(make: Make) -> None:
    panel = load(make(random_seed_column=["output_2", "instruction"]), seed=5)
    for number in range(20):
        row = Example("Add.", str(number), "two", "three")
        seed = f"is_switched_outputsAdd.\n\n{number}three5"
        (switched,) = random.Random(seed).choices([False, True])
        assert draws(row, panel).is_switched == switched


def test_an_order_that_is_fixed_never_turns(make: Make) -> None:
    panel = load(make(is_randomize_output_order=False))
    assert not any(draws(Example(str(n), "", "a", "b"), panel).is_switched for n in range(20))


WORDS = {"tokens_to_favor": ["(a)", "(b)"], "tokens_to_avoid": ["Both", "No idea"]}


def test_words_load_anywhere_and_run_where_their_tokenizer_is(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    panel = load(make(completions_kwargs=WORDS))
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    with pytest.raises(BadInput, match=r"no tokenizer of 'gpt-4' to bias words with; give `logit"):
        endpoints.check(panel)
    ids = {"(a)": [7, 1], "(b)": [7, 2], "Both": [3], "No idea": [4, 5]}
    here = SimpleNamespace(encode=ids.__getitem__)
    fake = SimpleNamespace(
        encoding_name_for_model=lambda model: {"gpt-4": "cl100k_base"}[model],
        get_encoding=lambda name: {"cl100k_base": here}[name],
    )
    monkeypatch.setitem(sys.modules, "tiktoken", fake)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    with pytest.raises(BadInput, match="cl100k_base of 'gpt-4' was never fetched; run once"):
        endpoints.check(panel)
    url = "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken"
    (tmp_path / hashlib.sha1(url.encode()).hexdigest()).touch()
    (judge,) = panel.annotators
    assert judge.body() == {"logit_bias": {"3": -100, "7": 7, "1": 7, "2": 7}}
    with pytest.raises(BadInput, match="no tokenizer of 'mine'"):
        judge.replace(model="mine").body()


def test_their_own_evaluators_load_or_are_refused_for_their_protocol() -> None:
    configs = their_configs()
    if configs is None:
        pytest.skip(
            "set ALPACA_EVAL_CONFIGS to a folder evaluators_configs, or install alpaca-eval"
        )
    loaded, refused = [], []
    for path in sorted(configs.glob("*/config*.yaml")):
        judges = yaml.safe_load(path.read_text())
        protocols = {each["fn_completions"] for each in judges.values()}
        try:
            panel = load(path)
        except NotOpenAI:
            assert protocols != {"openai_completions"}
            refused.append(path.parent.name)
            continue
        assert protocols == {"openai_completions"}
        assert [each.name for each in panel.annotators] == list(judges)
        loaded.append(panel)
    assert {each.answer.form for panel in loaded for each in panel.annotators} >= FORMS
    assert len(loaded) > 30
    assert len(refused) > 10


FORMS = {"scan", "weighted", "ranking", "pipeline", "scores"}


def their_configs() -> Path | None:
    """Where the evaluators of the alpaca-eval package lie, if they do."""
    if given := os.environ.get("ALPACA_EVAL_CONFIGS"):
        return Path(given)
    found = find_spec("alpaca_eval")
    return Path(str(found.origin)).parent / "evaluators_configs" if found else None
