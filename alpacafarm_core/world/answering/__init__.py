"""How each family is answered: the sentences of a draft, right or wrong by the writer's skill."""

from collections.abc import Callable, Mapping

from alpacafarm_core.world.answering import puzzles, records, texts, things
from alpacafarm_core.world.answering.pen import Pen
from alpacafarm_core.world.tasks import Task

SAY: Mapping[str, Callable[[Pen, Task], list[str]]] = {
    **things.SAY,
    **texts.SAY,
    **records.SAY,
    **puzzles.SAY,
}
