"""Instructions out of nothing: the text before a user's turn, where a draw ends, and tidying it.

Magpie (Xu et al. 2024, arXiv 2406.08464, section 2.1). Texts in, texts out; a tokenizer is only
asked how it words things. Stops are built anew each time, so that none of one policy's stays.
"""

import json
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

from alpacafarm_core.errors import BadInput
from alpacafarm_core.interactions import conversation
from alpacafarm_core.prompts import alpaca, merged, render
from alpacafarm_core.synthesis import RULES, Inventing

TEMPLATES = "prompt_templates"
MARK = "THE USER SPEAKS HERE"
INSTRUCTION, INPUT = "{instruction}", "{input}"

_HEADS = "task|question|instruction|prompt|problem|query|user"
_ANSWERS = "answer|solution|response|output|assistant"
_ANY = re.IGNORECASE | re.DOTALL
_TIDY = {
    "numbering": re.compile(r"\A\s*(?:\(?\d+[.)]|[-*•])\s+"),
    "prefix": re.compile(rf"\A\s*(?:{_HEADS})\s*\d*\s*:\s*", _ANY),
    "answer": re.compile(rf"\s*\b(?:{_ANSWERS})\s*:.*\Z", _ANY),
    "steps": re.compile(r"\s*(?<!\w)[#*\s]*step\s+(?:1|one)\b.*\Z", _ANY),
}


class Turn(NamedTuple):
    """A wording around a user's turn: what stands before it, and what follows.

    `between` parts the instruction from its input; it is "" where there is none.
    """

    before: str
    between: str
    after: str


class Found(NamedTuple):
    """What a draw comes to: its texts, the rules that tidied it, and whether it can be used."""

    instruction: str
    input: str
    rule: str
    status: str


def turn_of(
    tokenizer: Any, layout: str, system: str = "", history: str = "[]", has_input: bool = False
) -> Turn:
    """How a policy is asked, from the start of the prompt on; raises BadInput without a gap.

    "farm" is what every other stage asks in: the tokenizer's own templates, else Alpaca's, with the
    system text in front as it is; "chat" is the tokenizer's chat template. `history` is JSON of the
    messages before. A begin token that the tokenizer adds anyway is left out.
    """
    if layout == "chat":
        before, _, after = _chatted(tokenizer, system, history, MARK).partition(MARK)
        return Turn(before, "", after)
    name = "prompt_inputs" if has_input else "prompt_noinputs"
    template = _templates(tokenizer).get(name, "")
    before, gap, rest = template.partition(INSTRUCTION)
    between, second, after = rest.partition(INPUT) if has_input else ("", INPUT, rest)
    if not gap or not second:
        raise BadInput(f"{TEMPLATES}: {name} is missing or lacks a gap to draw; correct it")
    return Turn(_begun(tokenizer, system + before + conversation(history, "")), between, after)


def prompt_of(tokenizer: Any, layout: str, history: str, found: tuple[str, str]) -> str:
    """What an answer is drawn from: the turns before, instruction and input; no system text."""
    if layout == "chat":
        return _chatted(tokenizer, "", history, merged(*found))
    instruction, text = found
    return _begun(
        tokenizer, render(conversation(history, instruction), text, _templates(tokenizer))
    )


def stop_ids(tokenizer: Any, inventing: Inventing, has_input: bool = False) -> frozenset[int]:
    """Tokens that end a draw: special ones, the stops, and those with a newline in them.

    A draw with an input goes on after a newline. Raises BadInput for a stop that is no token.
    """
    ends = {*tokenizer.all_special_ids, *_ids_of(tokenizer, inventing.stops, "stops")}
    if inventing.newline and not has_input:
        texts = tokenizer.batch_decode([[number] for number in range(len(tokenizer))])
        ends |= {number for number, text in enumerate(texts) if "\n" in text}
    return frozenset(ends)


def never_first(tokenizer: Any, inventing: Inventing) -> list[int]:
    """Tokens that are not drawn first; raises BadInput for one that is no token."""
    return _ids_of(tokenizer, inventing.never_first, "never_first")


def special_texts(tokenizer: Any) -> tuple[str, ...]:
    """How special tokens are spelled; none may stand inside an instruction."""
    added = [str(each) for each in tokenizer.added_tokens_decoder.values() if each.special]
    return tuple(dict.fromkeys([*tokenizer.all_special_tokens, *added]))


def found_in(
    text: str, turn: Turn, inventing: Inventing, special: Sequence[str], ended: bool
) -> Found:
    """What a draw comes to; `ended` says that the policy came to a stop.

    >>> plain = Turn("", "", "\\n\\n### Response:")
    >>> found_in("Name a fruit.\\nAn apple.", plain, Inventing(), (), ended=True).instruction
    'Name a fruit.'
    """
    body, is_cut = _cut_at(text, turn.after.strip(), inventing.words)
    given = ""
    if turn.between:
        body, has_input, given = body.partition(turn.between)
        if not has_input or (inventing.newline and "\n" in body.strip()):
            return Found(body.strip(), "", "", "no_input")
    elif inventing.newline:
        body, newline, _ = body.partition("\n")
        is_cut = is_cut or bool(newline)
    instruction, rule = tidied(body.strip(), inventing.tidy)
    return Found(
        instruction,
        given.strip(),
        rule,
        _status(instruction, given.strip(), turn, special, ended or is_cut),
    )


def tidied(text: str, rules: Sequence[str]) -> tuple[str, str]:
    """The text after these rules, and which of them changed it, joined by "+".

    numbering and prefix take "2." and "Task:" from its start, answer and steps cut it where an
    answer or step 1 begins, first keeps the first line that is a question, else the first line.

    >>> tidied("3. Question: What is a plum? Answer: A fruit.", RULES)
    ('What is a plum?', 'numbering+prefix+answer')
    """
    used = []
    for rule in RULES:
        if rule not in rules:
            continue
        found = _first(text) if rule == "first" else _TIDY[rule].sub("", text).strip()
        if found != text:
            used.append(rule)
        text = found
    return text, "+".join(used)


def _first(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if line.endswith("?")), lines[0] if lines else "")


def _cut_at(text: str, mark: str, words: Sequence[str]) -> tuple[str, bool]:
    """The text up to a mark or a bare word, and whether there was one."""
    wanted = [re.escape(mark)] if mark else []
    wanted += [rf"\b{re.escape(word)}\b" for word in words]
    found = re.search("|".join(wanted), text, re.IGNORECASE) if wanted else None
    return (text[: found.start()], True) if found else (text, False)


def _status(instruction: str, given: str, turn: Turn, special: Sequence[str], ended: bool) -> str:
    if any(token and token in text for token in special for text in (instruction, given)):
        return "special"
    if not instruction:
        return "empty"
    if turn.between and not given:
        return "no_input"
    return "ok" if ended else "unfinished"


def _templates(tokenizer: Any) -> Any:
    return tokenizer.init_kwargs.get(TEMPLATES) or alpaca()


def _chatted(tokenizer: Any, system: str, history: str, text: str) -> str:
    """The chat template filled in, up to where the assistant speaks."""
    if not tokenizer.chat_template:
        raise BadInput("this policy has no chat template; set layout to farm, or give it one")
    asked = [{"role": "system", "content": system.strip()}] if system else []
    messages = [*asked, *json.loads(history), {"role": "user", "content": text}]
    try:
        said = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # jinja2's own errors, and what a template raises itself
        raise BadInput(
            f"the chat template refuses {[each['role'] for each in messages]}: {error}; leave the "
            "system text empty, or ask for one turn"
        ) from error
    return _begun(tokenizer, said)


def _begun(tokenizer: Any, text: str) -> str:
    """Without a begin token that the tokenizer puts there itself; two would be another prompt."""
    begin = tokenizer.bos_token
    adds = begin is not None and tokenizer("").input_ids[:1] == [tokenizer.bos_token_id]
    return text.removeprefix(begin) if adds else text


def _ids_of(tokenizer: Any, tokens: Sequence[str], field: str) -> list[int]:
    known = tokenizer.get_vocab()
    for token in tokens:
        if token not in known:
            near = get_close_matches(token, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise BadInput(f"{field}: {token!r} is no token of this policy{hint}")
    return [known[token] for token in tokens]
