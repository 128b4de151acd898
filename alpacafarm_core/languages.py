"""The language of a text, by its script and by the small words that every sentence has.

A rough tag for filters, without a model: seven languages of Latin script by their commonest words,
eight by their script. Left out: telling near relatives apart, and texts of a word or two.
"""

import re
from collections import Counter

WORDS = {
    "en": "the of and to in is that for it with as on are this be a an what how which who why give "
    "write tell name me my you i your or from at by do does can have has not should their",
    "de": "der die das und ist ein eine nicht mit auf für von den dem wie was ich zu schreibe mir",
    "fr": "le la les des et est une un que pour dans sur avec qui je vous quel quelle comment du",
    "es": "el la los las de y es una un que para en con por como qué cómo escribe mi sobre",
    "it": "il lo gli le di e è una un che per in con come cosa scrivi della del sono mi",
    "pt": "o a os as de e é uma um que para em com por como não escreva do da sobre",
    "nl": "de het een en is van dat niet met op voor ik wat hoe schrijf over aan mijn te zijn",
}
SCRIPTS = {
    "ja": r"[\u3040-\u30ff]",
    "ko": r"[\uac00-\ud7af]",
    "zh": r"[\u4e00-\u9fff]",
    "ru": r"[\u0400-\u04ff]",
    "ar": r"[\u0600-\u06ff]",
    "he": r"[\u0590-\u05ff]",
    "el": r"[\u0370-\u03ff]",
    "hi": r"[\u0900-\u097f]",
}
LETTER, WORD = re.compile(r"[^\W\d_]"), re.compile(r"[^\W\d_]+")
SHARE = 0.2
"""Of the letters in a script, for the script to say the language; Japanese goes before Chinese."""

_COMMON = {code: frozenset(said.split()) for code, said in WORDS.items()}
_SCRIPTS = {code: re.compile(script) for code, script in SCRIPTS.items()}


def language(text: str) -> str | None:
    """The ISO code of a text's language, None where nothing speaks for one.

    >>> language("What is the capital of Peru?"), language("Was ist die Hauptstadt von Peru?")
    ('en', 'de')
    """
    letters = len(LETTER.findall(text))
    for code, script in _SCRIPTS.items():
        if letters and len(script.findall(text)) >= SHARE * letters:
            return code
    said = WORD.findall(text.lower())
    votes = Counter({code: sum(word in known for word in said) for code, known in _COMMON.items()})
    (best, most), (_, second) = votes.most_common(2)
    return best if most > second else None
