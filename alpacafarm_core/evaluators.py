"""alpaca_eval's evaluator folders as panels: `configs.yaml` and the prompts it names, unchanged.

Each name in the file is an annotator, several are a pool. What alpaca_eval 0.6.6 takes for granted
is filled in, what only steers its own machinery (threads, retries, shuffling, columns of its output
files) is left out, and what cannot be kept is refused by name. Keys come from the environment
alone. Prices that a file does not give are those of our own table.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from alpacafarm_core.errors import BadInput, NotOpenAI

CONFIGS = "configs.yaml"
OPENAI = "https://api.openai.com/v1"
_HOME = ("OPENAI_API_BASE", "OPENAI_BASE_URL")

_FORMS: dict[str, tuple[str, dict[str, str]]] = {
    "regex_parser": ("scan", {"outputs_to_match": "patterns"}),
    "ranking_parser": ("ranking", {"model_1_name": "first"}),
    "json_parser": ("keyed", {"annotation_key": "key"}),
    "eval_parser": ("literal", {}),
    "lmsys_parser": ("scores", {}),
    "replace_parser": ("lookup", {"replacer": "table", "default_replacer": "default"}),
    "logprob_parser": (
        "weighted",
        {
            "numerator_token": "first",
            "denominator_tokens": "verdicts",
            "is_binarize": "binarise",
            "log_prob_index": "place",
        },
    ),
    "pipeline_meta_parser": ("pipeline", {"parsers_to_kwargs": "steps", "is_squeeze": "squeeze"}),
}
_EVALUATOR = {
    *("prompt_template", "fn_completions", "completions_kwargs", "fn_completion_parser"),
    *("completion_parser_kwargs", "completion_key", "batch_size", "is_randomize_output_order"),
    *("random_seed_column", "processors_to_kwargs"),
}
_EVALUATOR_LEFT_OUT = {
    *("is_shuffle", "is_add_default_processors", "prfx_to_completion_cols", "pretty_name", "link"),
    "packages_for_which_to_show_version",
}
_COMPLETION = {
    *("model_name", "max_tokens", "temperature", "top_p", "logprobs", "top_logprobs"),
    *("requires_chatml", "is_chat", "price_per_token", "tokens_to_favor", "tokens_to_avoid"),
    *("client_kwargs", "openai_api_base", "extra_body"),
}
_COMPLETION_LEFT_OUT = {"num_procs", "batch_size", "sleep_time", "n_retries"}
_ALWAYS = {"is_strip", "is_skip_multi_tokens_to_avoid"}
_BODY = {
    *("tools", "tool_choice", "parallel_tool_calls", "response_format", "logit_bias", "stop"),
    *("presence_penalty", "frequency_penalty", "reasoning_effort", "max_completion_tokens"),
    *("seed", "user", "service_tier", "verbosity"),
}
_SECRET = {
    *("api_key", "openai_api_keys", "organization", "openai_organization_ids", "project"),
    *("default_headers", "extra_headers", "client_config_path"),
}
# Steps that only add columns, or do what is done here anyhow.
_PROCESSORS = {"ChainOfThoughtProcessor", "JsonKeysToColumnProcessor", "PaddingForBatchesProcessor"}


def is_evaluator(held: Mapping[Any, Any]) -> bool:
    """Whether a YAML file is alpaca_eval's: names, with a prompt template under one of them."""
    return "annotators" not in held and any(
        isinstance(each, dict) and "prompt_template" in each for each in held.values()
    )


def fields(path: Path, held: Mapping[str, Any], text: Callable[[Path], str]) -> dict[str, Any]:
    """The fields of the panel that a file `path` with these contents describes.

    `text` reads a file. Raises BadInput with the name of what cannot be kept, NotOpenAI for a judge
    that is not asked by OpenAI's protocol.
    """
    judges = {str(name): _Judge(path, str(name), given) for name, given in held.items()}
    orders = {judge.order for judge in judges.values()}
    if len(orders) > 1:
        raise BadInput(
            f"{path}: is_randomize_output_order or random_seed_column differ within the pool; "
            "make them the same, or a file each"
        )
    ((is_random, columns),) = orders
    return {
        "name": path.parent.name if path.stem in ("configs", "config") else path.stem,
        "annotators": [judge.annotator(text) for judge in judges.values()],
        "order": "random" if is_random else "fixed",
        "order_by": columns,
        "draws": "alpaca_eval",
    }


class _Judge:
    """One evaluator of a file, and what it becomes."""

    def __init__(self, path: Path, name: str, given: dict[str, Any]) -> None:
        self.path, self.name, self.given = path, name, given
        if not isinstance(given, dict):
            raise BadInput(f"{path}: {name} is no mapping of an evaluator's fields; mend it")
        protocol = given.get("fn_completions", "openai_completions")
        if protocol != "openai_completions":
            raise NotOpenAI(
                f"{path}: {name} asks by {protocol}; only openai_completions is spoken here, so "
                "serve its model behind an OpenAI-compatible URL and set client_kwargs.base_url"
            )
        self.asked: dict[str, Any] = self._mapping("completions_kwargs")
        self._refuse_others("", given, _EVALUATOR | _EVALUATOR_LEFT_OUT)
        always = {field for field in _ALWAYS if self.asked.get(field, True) is True}
        known = _COMPLETION | _COMPLETION_LEFT_OUT | _BODY | always
        self._refuse_others("completions_kwargs.", self.asked, known)

    @property
    def order(self) -> tuple[bool, tuple[str, ...]]:
        """Whether the order is drawn, and the columns that seed the draw."""
        columns = self.given.get("random_seed_column", ["instruction"])
        drawn = bool(self.given.get("is_randomize_output_order", True))
        return drawn, (columns,) if isinstance(columns, str) else tuple(columns)

    def annotator(self, text: Callable[[Path], str]) -> dict[str, Any]:
        """Its fields."""
        asked, batch = self.asked, self.given.get("batch_size", 1)
        prompt = self._prompt(text)
        self._refuse_others(
            "processors_to_kwargs.", self._mapping("processors_to_kwargs"), _PROCESSORS
        )
        price = asked.get("price_per_token")
        return {
            "name": self.name,
            "model": self._needed(asked, "completions_kwargs.", "model_name"),
            "endpoint": self._endpoint(),
            "api": "chat" if self._is_chat() else "completions",
            "prompt": prompt,
            "prompt_with_input": prompt,
            "batch": batch,
            "pads": batch > 1,
            "answer": self._answer(),
            "temperature": _or(asked.get("temperature", 0.7), 1.0),
            "top_p": _or(asked.get("top_p", 1.0), 1.0),
            "max_tokens": asked.get("max_tokens", 2048),
            "top_logprobs": self._top_logprobs(),
            "favour": _or(asked.get("tokens_to_favor"), ()),
            "avoid": _or(asked.get("tokens_to_avoid"), ()),
            "extra": self._extra(),
            "price_per_1k_tokens": None if price is None else 1000 * float(price),
        }

    def _prompt(self, text: Callable[[Path], str]) -> str:
        """The template: a file beside the folder of the YAML file, or the text itself."""
        named = str(self._needed(self.given, "", "prompt_template"))
        if "{output_1}" in named:
            return named
        return text(self.path.absolute().parent.parent / named)

    def _endpoint(self) -> str:
        client = _or(self.asked.get("client_kwargs"), {})
        self._refuse_others("client_kwargs.", client, {"base_url", "timeout", "max_retries"})
        given = (client.get("base_url"), self.asked.get("openai_api_base"))
        return next(filter(None, (*given, *map(os.environ.get, _HOME))), OPENAI)

    def _is_chat(self) -> bool:
        """Whether the model chats: as said, else by its name."""
        model = str(self.asked["model_name"])
        old = "gpt-3" in model and "turbo" not in model
        by_name = not ("instruct" in model or old or model.startswith("text-"))
        return bool(self.asked.get("is_chat", self.asked.get("requires_chatml", by_name)))

    def _top_logprobs(self) -> int:
        """How many; the older completions API gives their number as `logprobs` itself."""
        given = self.asked.get("top_logprobs", self.asked.get("logprobs"))
        return 0 if given is None or isinstance(given, bool) else int(given)

    def _extra(self) -> dict[str, Any]:
        body = {
            name: each for name, each in self.asked.items() if name in _BODY and each is not None
        }
        further: dict[str, Any] = _or(self.asked.get("extra_body"), {})
        return body | further

    def _answer(self) -> dict[str, Any]:
        name = self.given.get("fn_completion_parser", "regex_parser")
        form = self._form(name, self._mapping("completion_parser_kwargs"))
        first = form["steps"][0] if name == "pipeline_meta_parser" else form
        key = "completions_all" if first["form"] == "weighted" else "completions"
        if self.given.get("completion_key", "completions") != key:
            raise BadInput(
                f"{self.path}: {self.name}: {name} reads completion_key {key}; set it so"
            )
        return form

    def _form(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        """A parser of theirs, by name and arguments, as a form of ours."""
        if name not in _FORMS:
            known = ", ".join(_FORMS)
            raise BadInput(f"{self.path}: {self.name}: no parser {name}; there are {known}")
        form, named = _FORMS[name]
        self._refuse_others("completion_parser_kwargs.", given, named)
        made: dict[str, Any] = {named[key]: value for key, value in given.items()}
        if form == "weighted":
            made = {"binarise": True} | made
        if form == "pipeline":
            steps = _or(made.get("steps"), {})
            made["steps"] = [self._form(step, _or(each, {})) for step, each in steps.items()]
        return {"form": form} | made

    def _mapping(self, field: str) -> dict[str, Any]:
        held = _or(self.given.get(field), {})
        if not isinstance(held, dict):
            raise BadInput(f"{self.path}: {self.name}: {field} is no mapping; mend it")
        return held

    def _needed(self, held: Mapping[str, Any], place: str, field: str) -> Any:
        if field not in held:
            raise BadInput(f"{self.path}: {self.name} has no {place}{field}; give it")
        return held[field]

    def _refuse_others(self, place: str, given: Mapping[str, Any], known: Iterable[str]) -> None:
        for field in given:
            if field in _SECRET:
                raise BadInput(
                    f"{self.path}: {self.name}: {place}{field} would stand in files; take it out, "
                    "keys come from the environment (OPENAI_API_KEY)"
                )
            if field not in known:
                raise BadInput(
                    f"{self.path}: {self.name}: {place}{field}: {given[field]!r} is nothing that "
                    "is done here; take it out or mend its spelling"
                )


def _or(given: Any, default: Any) -> Any:
    """What was given, or the default where that is nothing."""
    return default if given is None else given
