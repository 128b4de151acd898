"""The prompt a policy sees: Alpaca's layout, filled in.

The templates lie in `prompts/alpaca.json`. The response follows `### Response:` directly, without
a space or a newline. To drive a checkpoint that was trained on another wording of the preamble,
give its templates: as `prompt_templates` in the `tokenizer_config.json` of the model to start from,
with the same two names. Every model that is trained from it carries them on.
"""

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from alpacafarm_core.errors import BadInput

GAP = re.compile(r"\{instruction\}|\{input\}")

FOLDER = Path(__file__).parent / "prompts"


@cache
def alpaca() -> Mapping[str, str]:
    """The two templates: `prompt_inputs` for rows with an input, `prompt_noinputs` without."""
    templates: dict[str, str] = json.loads((FOLDER / "alpaca.json").read_text(encoding="utf-8"))
    return templates


def render(instruction: str, input: str, templates: Mapping[str, str] | None = None) -> str:
    """The prompt for an instruction; an empty input takes the template that has none."""
    chosen = alpaca() if templates is None else templates
    template = chosen.get(name := "prompt_inputs" if input else "prompt_noinputs")
    if template is None or "{instruction}" not in template:
        raise BadInput(f"prompt_templates: {name} is missing or has no {{instruction}} in it")
    parts = {"{instruction}": instruction, "{input}": input}
    return GAP.sub(lambda match: parts[match.group()], template)


def merged(instruction: str, prompt_input: str) -> str:
    """Instruction and input as AlpacaEval joins them: an empty line between."""
    return f"{instruction}\n\n{prompt_input}" if prompt_input else instruction
