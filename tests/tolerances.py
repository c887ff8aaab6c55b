"""Every tolerance the tests use, each with its reason."""

ULP = 1e-13
"""float64 closed forms: a few hundred rounding errors, none amplified."""

EXACT = 1e-12
"""float64 values that pass through a solver or a special function of a library."""

F32 = 5e-6
"""float32 against float64 on inputs that float32 holds exactly: about 40 rounding errors."""

SOLVER = 1e-6
"""Quantities an iterative solver returns at its default tolerance."""

FINITE_DIFF = 1e-4
"""First derivatives against central differences with the best float64 step."""

MONTE_CARLO = 5.0
"""Standard errors: one false alarm in 1.7 million for a normal error."""
