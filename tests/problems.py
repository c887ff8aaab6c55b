"""The links and points every law is tried on."""

from __future__ import annotations

import numpy as np
import pytest

from jaxpref import links

LINKS = {
    link.name: link
    for link in (
        links.logistic,
        links.probit,
        links.cauchit,
        links.laplace,
        links.student_t(0.5),
        links.student_t(3),
        links.student_t(30),
    )
}

SLOW = ("student_t(0.5)", "student_t(30)")
EACH_LINK = [
    pytest.param(name, marks=pytest.mark.slow) if name in SLOW else pytest.param(name)
    for name in LINKS
]
"""Names for ``parametrize``: the outer two of the three Student-t links only with -m slow."""

_sizes = np.concatenate([[0.0], 10.0 ** np.linspace(-8, np.log10(700), 40), [700.0, 1.0]])
MARGINS = np.concatenate([-_sizes[::-1], _sizes])
"""From -700 to 700, dense around zero and geometric outwards."""
