"""The judges of the built-in world, behind the same seam as a real language model.

A judge gets rendered prompt text. It finds there the examples it is to judge (those after the last
verdict already given), the form of answer asked for, decides by its taste, and writes. It knows
nothing of templates, panels or tables, so whatever is wrong with those shows in its answers. Sheets
to rate, criticise or tag are read and filled in by `assessing`.
"""

import json
import re
from collections.abc import Callable, Sequence
from functools import partial

from alpacafarm_core.llm import Answer, Request, failed
from alpacafarm_core.world.assessing import Manner, Sheet, fill
from alpacafarm_core.world.people import PEOPLE
from alpacafarm_core.world.tastes import Mood, Opinion, Shown, Taste, opinion, uniform
from alpacafarm_core.world.utility import utility

_QUIRKS = 0.12
_MISTAKES = 0.08
_SURE = Taste(longer=0.3, lists=0.1, quirks=_QUIRKS, mistakes=_MISTAKES)
_HASTY = _SURE._replace(longer=0.4, lists=0.12, mistakes=1.5 * _MISTAKES)
_OLD = _SURE._replace(first=0.05, quirks=1.2 * _QUIRKS, mistakes=1.8 * _MISTAKES)

JUDGES = {
    # The dearest: they weigh everything and seldom slip; two of them play a character.
    "world/judge-gpt4-1": _SURE._replace(detail=0.8),
    "world/judge-gpt4-2": _SURE._replace(detail=1.6, form=1.5, brevity=0.4, longer=0.3, lists=0.0),
    "world/judge-gpt4-3": _SURE,
    "world/judge-gpt4-4": _SURE._replace(following=1.3),
    "world/judge-gpt4-5": _SURE._replace(
        detail=0.3, brevity=1.5, first=0.06, longer=0.0, lists=0.25
    ),
    # The cheap ones: chatty, fond of length.
    "world/judge-chatgpt-1": _HASTY._replace(content=0.7),
    "world/judge-chatgpt-2": _HASTY._replace(content=0.8, first=-0.03),
    "world/judge-chatgpt-3": _HASTY._replace(following=0.5, first=0.04),
    "world/judge-chatgpt-4": _HASTY._replace(form=0.6, first=0.05),
    # The old ones: they lean towards what they read first.
    "world/judge-davinci003-1": _OLD._replace(following=0.6),
    "world/judge-davinci003-2": _OLD._replace(content=0.7),
    "world/judge-davinci003-3": _OLD._replace(content=0.7, form=1.4),
    "world/judge-davinci003-4": _OLD._replace(content=0.6, first=0.06, longer=0.65),
}
TASTES: dict[str, Taste] = JUDGES | PEOPLE

Decide = Callable[[Shown, Request], Opinion]

_HEADED = re.compile(
    r"### Instruction:\n(.*?)\n\n(?:### Input:\n(.*?)\n\n)?"
    r"### Output \(a\):\n(.*?)\n\n### Output \(b\):\n(.*?)(?=\n\n## |\n*\Z)",
    re.DOTALL,
)
_COMPACT = re.compile(
    r"^Instruction: (.*?)\n(?:Input: (.*?)\n)?\(a\) (.*?)\n\(b\) (.*?)\Z", re.DOTALL | re.MULTILINE
)
_KEY = re.compile(r'"(\w+)": (?:true|false)')
_CHARACTERS_PER_TOKEN = 4
_REFUSAL = "I'm sorry, but I cannot compare these outputs."


def manner(model: str) -> str:
    """How a model of the world judges, as text: who judges otherwise is another judge."""
    return repr(TASTES.get(model, ""))


def ask(requests: Sequence[Request]) -> list[Answer]:
    """What the models of the world answer; those it does not have give a failed answer."""
    return [_answer(request) for request in requests]


def _answer(request: Request) -> Answer:
    if request.model == REFUSING:
        return _written(request, _REFUSAL)
    sheet = Sheet.of(request)
    if sheet is not None and request.model in MANNERS:
        mood = Mood(request.model, request.temperature, request.seed)
        return _written(request, fill(sheet, MANNERS[request.model], mood))
    decide = DECIDERS.get(request.model)
    if decide is None:
        return failed(f"the built-in world has no model {request.model}", rejected=True)
    opinions = [decide(shown, request) for shown in examples(request.messages[-1].content)]
    return _written(request, _text(request, opinions))


def _by_taste(taste: Taste, shown: Shown, request: Request) -> Opinion:
    return opinion(taste, shown, Mood(request.model, request.temperature, request.seed))


def _by_utility(shown: Shown, request: Request) -> Opinion:
    first = utility(shown.instruction, shown.input, shown.first)
    second = utility(shown.instruction, shown.input, shown.second)
    return _coin(shown, request) if first == second else _named(first > second)


def _first(shown: Shown, request: Request) -> Opinion:
    return _named(True)


def _coin(shown: Shown, request: Request) -> Opinion:
    return _named(uniform(request.model, str(request.seed), *shown) < 0.5)


def _named(first_is_better: bool) -> Opinion:
    return Opinion(first_is_better, f"Output ({'a' if first_is_better else 'b'}) is better.")


REFUSING = "world/refuse"
DECIDERS: dict[str, Decide] = {
    **{model: partial(_by_taste, taste) for model, taste in TASTES.items()},
    "world/oracle": _by_utility,
    "world/always-first": _first,
    "world/coin": _coin,
}
MANNERS = {
    **{model: Manner(taste) for model, taste in TASTES.items()},
    "world/oracle": Manner(),
    "world/always-first": Manner(rule="first"),
    "world/always-five": Manner(rule="fives"),
    "world/sloppy": Manner(rule="sloppy"),
    "world/coin": Manner(rule="coin"),
}
"""How those who rate, criticise and tag do it."""

MODELS = (*DECIDERS, *(model for model in MANNERS if model not in DECIDERS), REFUSING)


def examples(text: str) -> list[Shown]:
    """The examples of a prompt, or of its last turn, that have no verdict yet."""
    for mark, layout in (("\n## Verdict", _HEADED), ("\nBetter:", _COMPACT)):
        if mark in text:
            open_part = text.rsplit(mark, 2)[-2]
            return [Shown(*found.groups(default="")) for found in layout.finditer(open_part)]
    return []


def judged(request: Request) -> int:
    """How many a request is about: examples of pairs, or the answers on a sheet."""
    sheet = Sheet.of(request)
    return len(examples(request.messages[-1].content)) if sheet is None else len(sheet.answers)


def _text(request: Request, opinions: Sequence[Opinion]) -> str:
    """The opinions in the form that the head of the prompt asks for."""
    if not opinions:
        return "I see nothing to compare."
    head = request.messages[0].content.split("\n## ", 1)[0]
    key = _KEY.search(head)
    if key is not None:
        objects = [{"explanation": each.reason, key[1]: each.first_is_better} for each in opinions]
        return json.dumps(objects if "list" in head else objects[0])
    name = "({})" if "\nBetter:" in request.messages[-1].content else "Output ({})"
    return "\n".join(name.format("a" if each.first_is_better else "b") for each in opinions)


def _written(request: Request, text: str) -> Answer:
    """An answer of at most `max_tokens` tokens, four characters each."""
    room = request.max_tokens * _CHARACTERS_PER_TOKEN
    prompt = sum(_tokens(message.content) for message in request.messages)
    reason = "length" if len(text) > room else "stop"
    return Answer(text[:room], reason, prompt, _tokens(text[:room]), seconds=0.0)


def _tokens(text: str) -> int:
    return -(-len(text) // _CHARACTERS_PER_TOKEN)
