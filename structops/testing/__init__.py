"""The testing kit: one case database per op, tolerances per dtype, and the checks that every op must pass.

Used by the test suite, by ``structops verify`` and by anybody with an implementation of their own.
"""

from structops.testing.spec import Arguments, Case, ErrorCase, OpSpec, specs

__all__ = ["Arguments", "Case", "ErrorCase", "OpSpec", "specs"]
