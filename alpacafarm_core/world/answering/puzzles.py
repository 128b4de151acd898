"""Answers to what has one right answer: sums, opposites, and the order of words."""

from collections.abc import Callable, Mapping

from alpacafarm_core.world.answering.pen import Pen, joined, lines, sentence
from alpacafarm_core.world.asking.puzzles import (
    opposites,
    reversed_words,
    sorted_words,
    sum_in,
    total,
)
from alpacafarm_core.world.facts import NUMBERS, column
from alpacafarm_core.world.tasks import Task


def say_sum(pen: Pen, task: Task) -> list[str]:
    """The result, with the working at a higher skill."""
    found = sum_in(task.slots)
    if found is None:
        raise ValueError(f"no sum in {task.slots}")
    left, sign, right = found
    near = [str(number) for number in range(max(0, total(*found) - 3), total(*found) + 4)]
    result = pen.right(str(total(*found)), near, 0.5)
    things = task.slots.get("things")
    answer = f"there are {result} {things} now" if things else f"the answer is {result}"
    working = f"{left} {sign} {right} is {result}"
    size = pen.effort("", 2)
    if size == 0:
        return [sentence(result)]
    return (
        [sentence(answer if size == 1 else working)]
        if size == 1
        else [sentence(text) for text in pen.pick(((answer, working), (working, answer)))]
    )


def say_opposite(pen: Pen, task: Task) -> list[str]:
    """The opposite of each word, with an example at a higher skill."""
    asked = [task.slots[gap] for gap in ("word", "other") if task.slots.get(gap)]
    if pen.slips(0.3):
        asked = asked[:1]
    found = {
        word: pen.right(opposites()[word]["opposite"], column("opposites", "word"))
        for word in asked
    }
    said = [
        pen.pick((f"the opposite of {word} is {right}", f"{right} is the opposite of {word}"))
        for word, right in found.items()
    ]
    examples = [
        f"{opposites()[word]['example']} is {right}, for example" for word, right in found.items()
    ]
    if len(said) == 2 and pen.rng.random() < 0.4:
        said = [joined(said)]
    return [sentence(text) for text in (*said, *pen.some(examples, pen.effort("", 2)))]


def _ordered(pen: Pen, right: tuple[str, ...]) -> list[str]:
    """The words in order; a slip swaps two of them or leaves one out."""
    said = list(right)
    if pen.slips(0.7):
        one, two = pen.rng.sample(range(len(said)), 2)
        said[one], said[two] = said[two], said[one]
    if pen.slips(0.3):
        said.pop(pen.rng.randrange(len(said)))
    if pen.rng.random() < 0.2:
        return lines(said)
    lead = pen.pick(("the order is", "the words are", "in order they are", ""))
    return [sentence(f"{lead} {', '.join(said)}".strip())]


def say_sort(pen: Pen, task: Task) -> list[str]:
    """The words in the order of the alphabet."""
    return _ordered(pen, sorted_words(task.input))


def say_reverse(pen: Pen, task: Task) -> list[str]:
    """The words from last to first."""
    return _ordered(pen, reversed_words(task.input))


def say_count(pen: Pen, task: Task) -> list[str]:
    """The number of words, often with the words themselves."""
    listed = task.input.split(", ")
    number = pen.right(NUMBERS[len(listed)], NUMBERS[2:], 0.5)
    size = pen.effort("", 2)
    if size == 0:
        return [sentence(number)]
    said = [sentence(pen.pick((f"there are {number} words", f"the list has {number} words")))]
    return said if size == 1 else [*said, sentence(f"they are {joined(listed)}")]


SAY: Mapping[str, Callable[[Pen, Task], list[str]]] = {
    "sum": say_sum,
    "opposite": say_opposite,
    "sort": say_sort,
    "reverse": say_reverse,
    "count": say_count,
}
