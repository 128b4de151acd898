"""Answers that follow from each other, by a model of entailment."""

import json
import time

import pytest
import torch

import tasks
from alpacafarm_core.artifacts import Scores
from alpacafarm_core.clustering import Entailment, Question, clustered
from alpacafarm_core.entailment import Reader, Verdict, asking, equal, shared
from alpacafarm_core.errors import BadInput
from alpacafarm_core.recipe import Recipe
from alpacafarm_core.setup import Setup
from alpacafarm_core.store import Made
from flows.planning import Planner
from tests.paper_farm import numbered
from tests.test_clustering import scored
from tests.test_training import EXACT
from tests.tiny import ANSWERS, SENTENCES

NO, MAYBE, YES = Verdict.CONTRADICTION, Verdict.NEUTRAL, Verdict.ENTAILMENT


@pytest.mark.parametrize(
    ("forth", "back", "rules"),
    [
        (YES, YES, {"both_entail", "one_entails", "no_contradiction"}),
        (YES, MAYBE, {"one_entails", "no_contradiction"}),
        (MAYBE, MAYBE, {"no_contradiction"}),
        (YES, NO, set()),
        (NO, NO, set()),
    ],
)
def test_each_rule_says_which_verdicts_make_answers_equal_either_way_round(forth, back, rules):
    for rule in ("both_entail", "one_entails", "no_contradiction"):
        assert equal(rule, forth, back) == equal(rule, back, forth) == (rule in rules)


def test_the_prompt_stands_before_both_answers_and_both_ways_round_are_asked_in_one_batch():
    batches = []

    def judge(pairs):
        batches.append(list(pairs))
        return [YES] * len(pairs)

    two = [Question(("Name one.", ""), "A.", "B."), Question(("Is it?", "This."), "Yes.", "No.")]
    assert asking(Entailment(), judge)(two) == [True, True]
    forth = [("Name one.\nA.", "Name one.\nB."), ("Is it?\nThis.\nYes.", "Is it?\nThis.\nNo.")]
    assert batches == [[*forth, *((back, first) for first, back in forth)]]


def test_clusters_are_of_answers_that_the_judge_lets_follow_from_each_other():
    def judge(pairs):
        """An answer in capitals follows from any of its letter; not the other way round."""
        said = [tuple(text[-1] for text in pair) for pair in pairs]
        return [YES if two in (one, one.upper()) else MAYBE for one, two in said]

    rows = scored("a A a b")
    for rule, expected in (("both_entail", [0, 1, 0, 2]), ("one_entails", [0, 0, 0, 1])):
        found = clustered(rows, asking(Entailment(rule=rule), judge))
        assert found["cluster"].to_list() == expected


@pytest.mark.parametrize(
    ("sizes", "room", "kept"),
    [
        ((10, 20), 30, (10, 20)),
        ((10, 300), 200, (10, 190)),
        ((300, 10), 200, (190, 10)),
        ((300, 200), 201, (100, 100)),
    ],
)
def test_the_longer_side_is_shortened_first_and_both_ways_round_alike(sizes, room, kept):
    assert shared(sizes, room) == kept
    assert shared(sizes[::-1], room) == kept[::-1]


@pytest.fixture(scope="module")
def mnli(tmp_path_factory):
    """A random model of three classes, and a tokenizer that ends each of two texts."""
    from tokenizers import ByteLevelBPETokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("mnli")
    bpe = ByteLevelBPETokenizer()
    special = ["<s>", "</s>", "<pad>"]
    bpe.train_from_iterator(SENTENCES, vocab_size=384, min_frequency=1, special_tokens=special)
    bpe._tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    names = dict(zip(("bos_token", "eos_token", "pad_token"), special, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, **names).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=384,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        pad_token_id=2,
        id2label={0: "CONTRADICTION", 1: "NEUTRAL", 2: "ENTAILMENT"},
        initializer_range=1.0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForSequenceClassification(config).save_pretrained(folder)
    return folder


def relabelled(folder, out, names):
    """The same model with other names for its classes."""
    out.mkdir()
    for file in folder.iterdir():
        (out / file.name).write_bytes(file.read_bytes())
    config = json.loads((out / "config.json").read_text())
    config["id2label"] = {str(number): name for number, name in enumerate(names)}
    config["label2id"] = {name: number for number, name in enumerate(names)}
    (out / "config.json").write_text(json.dumps(config))
    return out


PAIRS = [(one, two) for one in ANSWERS for two in ANSWERS]


def test_a_verdict_depends_on_no_other_pair_of_its_batch(mnli):
    reader = Reader.of(mnli, Entailment(), EXACT)
    together = reader.judge(PAIRS)
    assert [reader.judge([pair])[0] for pair in PAIRS] == together
    assert len(set(together)) > 1
    assert reader.counts == {"judged": 2 * len(PAIRS), "shortened": 0}


def test_classes_are_known_by_their_names_whatever_their_order(mnli, tmp_path):
    turned = relabelled(mnli, tmp_path / "turned", ["entailment", "neutral", "contradiction"])
    plain, other = (Reader.of(at, Entailment(), EXACT).judge(PAIRS) for at in (mnli, turned))
    assert [2 - verdict for verdict in plain] == other


def test_a_model_of_other_classes_is_refused_with_the_mend(mnli, tmp_path):
    strange = relabelled(mnli, tmp_path / "strange", ["good", "bad", "neutral"])
    with pytest.raises(BadInput, match=r"good, bad, neutral.*name a model fine-tuned on MNLI"):
        Reader.of(strange, Entailment(), EXACT)


def test_pairs_too_long_are_shortened_at_the_beginning_and_counted(mnli):
    reader = Reader.of(mnli, Entailment(max_length=32), EXACT)
    start, end = "The sky is blue today. " * 9, "Blue."
    long = (start + end, "No.")
    premise, hypothesis = reader._fitted(long)
    assert (start + end).endswith(premise) and len(premise) < len(start) and hypothesis == "No."
    assert reader._fitted(long[::-1]) == (hypothesis, premise)
    assert reader.counts["shortened"] == 2
    assert len(reader.tokenizer(premise, hypothesis)["input_ids"]) <= 32


def test_the_stage_takes_the_model_in_and_notes_what_was_read(store, mnli):
    answered = Scores(key=numbered(0xC2))
    rows = scored("A B A", "A A A")
    store.write(answered, Made(rows), Recipe.of("made", 1, {}), time.time())
    clustering = Entailment(model=str(mnli), rule="no_contradiction")
    clusters = tasks.cluster(answered, clustering)
    made = store.read(clusters)
    assert made["instruction"].to_list() == rows["instruction"].to_list()
    assert made["cluster"].to_list()[3:] == [0, 0, 0]
    assert store.manifest(clusters).notes == {"judged": 2, "shortened": 0}
    assert tasks.cluster(answered, clustering) == clusters
    told = Planner(Setup(scale="smoke"), store, None).cluster(answered, clustering)
    assert told == clusters
