"""The testing kit: one case database per op, tolerances per dtype, and the checks that every op must pass.

Used by the test suite, by ``structops verify`` and by anybody with an implementation of their own:

>>> from structops import testing
>>> for job in testing.plan(testing.specs()["nms"], "mine", function=my_nms):
...     print(job.run())
"""

from structops.testing.plan import CHECKS, Job, interpreted, layouts_of, plan, usable_backends
from structops.testing.run import Result, Target
from structops.testing.spec import Arguments, Case, ErrorCase, OpSpec, specs
from structops.testing.tolerances import TOLERANCES, Error, Tolerance

__all__ = [
    "CHECKS",
    "TOLERANCES",
    "Arguments",
    "Case",
    "Error",
    "ErrorCase",
    "Job",
    "OpSpec",
    "Result",
    "Target",
    "Tolerance",
    "interpreted",
    "layouts_of",
    "plan",
    "specs",
    "usable_backends",
]
