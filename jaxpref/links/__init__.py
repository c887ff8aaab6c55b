"""Links: margin to probability and back, the log density, and a user's own."""

from .assumptions import AssumptionCheck, LinkReport, check_link
from .base import Link
from .closed_form import cauchit, laplace, logistic, probit
from .custom import by_name, complementary_log_log, from_density, from_probability
from .quadrature import student_t

__all__ = [
    "Link",
    "logistic",
    "probit",
    "cauchit",
    "laplace",
    "student_t",
    "from_probability",
    "from_density",
    "complementary_log_log",
    "by_name",
    "check_link",
    "LinkReport",
    "AssumptionCheck",
]
