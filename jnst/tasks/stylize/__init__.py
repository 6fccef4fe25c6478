"""Style transfer by optimizing an image (Gatys, Ecker & Bethge 2016), compiled.

`one.py` is one run, `many.py` a batch of them in one program; `parts.py` makes what a step is given, `loop.py` holds
what is said between steps.
"""

from jnst.tasks.stylize import many
from jnst.tasks.stylize.loop import Callback, Record, Result
from jnst.tasks.stylize.one import Prepared, footprint, prepare, restore, run, stylize
from jnst.tasks.stylize.parts import objective_spec

__all__ = [
    "Callback",
    "Prepared",
    "Record",
    "Result",
    "footprint",
    "many",
    "objective_spec",
    "prepare",
    "restore",
    "run",
    "stylize",
]
