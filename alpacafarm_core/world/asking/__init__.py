"""The families of instructions: how each is drawn, and what an answer to it needs."""

from collections.abc import Mapping

from alpacafarm_core.world.asking import puzzles, records, texts, things
from alpacafarm_core.world.tasks import Family

FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (*things.FAMILIES, *texts.FAMILIES, *records.FAMILIES, *puzzles.FAMILIES)
}
