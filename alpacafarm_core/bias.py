"""Words a judge shall favour or avoid, as the bias on tokens that a request can carry.

OpenAI's tokenizers come with tiktoken, which fetches each from the network once. Here nothing is
fetched: a tokenizer that is not there yet is refused, with the command that fetches it.
"""

import hashlib
import os
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from alpacafarm_core.errors import BadInput

FAVOURED, AVOIDED = 7, -100
_FILES = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"
_FILE_OF = {"p50k_edit": "p50k_base", "o200k_harmony": "o200k_base"}


def bias(model: str, favour: Sequence[str], avoid: Sequence[str]) -> dict[str, int]:
    """Token ids, as text, to what is added to their logits.

    As alpaca_eval has it: every token of a favoured text gains 7, a text to avoid that is a single
    token loses 100, one of several tokens is left alone. Raises BadInput without a tokenizer.
    """
    encoding = _encoding(model)
    avoided = [ids for ids in map(encoding.encode, avoid) if len(ids) == 1]
    held = {str(ids[0]): AVOIDED for ids in avoided}
    return held | {str(each): FAVOURED for text in favour for each in encoding.encode(text)}


def _encoding(model: str) -> Any:
    mend = "give `logit_bias` in its `extra` yourself, or take the words out"
    try:
        tiktoken = import_module("tiktoken")
        name = tiktoken.encoding_name_for_model(model)
    except (ImportError, KeyError):
        raise BadInput(f"no tokenizer of {model!r} to bias words with; {mend}") from None
    if not _held(name).is_file():
        raise BadInput(
            f"the tokenizer {name} of {model!r} was never fetched; run once, with a network, "
            f"python -c 'import tiktoken; tiktoken.get_encoding(\"{name}\")', or {mend}"
        )
    return tiktoken.get_encoding(name)


def _held(name: str) -> Path:
    """Where tiktoken keeps a tokenizer it has fetched."""
    folder = next(
        (
            os.environ[each]
            for each in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR")
            if each in os.environ
        ),
        str(Path(tempfile.gettempdir()) / "data-gym-cache"),
    )
    url = _FILES.format(_FILE_OF.get(name, name))
    return Path(folder) / hashlib.sha1(url.encode()).hexdigest()
