"""The methods, a file each: the folder is the list.

Importing this package imports every file in it. A new method is a new file; it then appears in the
flows' forms, on the command line, on the leaderboard and in the parametrised tests.
"""

from functools import reduce
from importlib import import_module
from operator import or_
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from alpacafarm_core.method import Method

for _file in iter_modules(__path__):
    import_module(f"{__name__}.{_file.name}")

METHODS: dict[str, type[Method]] = {
    str(method.model_fields["name"].default): method for method in Method.__subclasses__()
}

if TYPE_CHECKING:
    AnyMethod = Method
else:
    # A form opens on the first that has most of its default's fields, and adds those it lacks.
    _forms = sorted(METHODS.values(), key=lambda m: (len(m.model_fields), m is not METHODS["dpo"]))
    AnyMethod = Annotated[reduce(or_, _forms), Field(discriminator="name")]
