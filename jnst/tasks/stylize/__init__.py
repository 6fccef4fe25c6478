"""Style transfer by optimizing an image (Gatys, Ecker & Bethge 2016), compiled.

`one.py` is one run, scale after scale, `stage.py` one of its scales, `many.py` a batch of runs in one program;
`parts.py` makes what a step is given. `jnst.loop` drives a run, and says what there is to say between steps.
"""

from jnst.loop import Callback, Prepared, Record, Result, restore, run
from jnst.tasks.stylize import many
from jnst.tasks.stylize.one import footprint, prepare, stylize
from jnst.tasks.stylize.parts import objective_spec
from jnst.tasks.stylize.stage import Level

__all__ = [
    "Callback",
    "Level",
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
