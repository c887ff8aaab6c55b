"""``jaxpref sensitivity`` and ``jaxpref region``."""

from __future__ import annotations

import json
import math

import pytest

from jaxpref.__main__ import main
from tests import tolerances as tol

POINT = ["sensitivity", "--p-ik", "0.99", "--p-kj", "0.02"]


def run_json(capsys, *arguments: str) -> dict:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, *arguments: str) -> str:
    assert main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err
    return err


def eq_4(p_ik: float, p_kj: float) -> float:
    return p_kj * (1 - p_kj) / (p_ik + p_kj - 2 * p_ik * p_kj - 1) ** 2


def test_example_1(capsys):
    content = run_json(capsys, *POINT, "--threshold", "20")
    assert content["dp_ij_dp_ik"]["value"] == pytest.approx(eq_4(0.99, 0.02), rel=tol.ULP)
    assert content["dp_ij_dp_kj"]["value"] == pytest.approx(eq_4(0.02, 0.99), rel=tol.ULP)
    odds = 0.99 / 0.01 * 0.02 / 0.98
    assert content["p_ij"]["probability"] == pytest.approx(odds / (1 + odds), rel=tol.ULP)
    assert content["dp_ij_dp_ik"]["largest_M"] == 20
    assert content["dp_ij_dp_kj"]["largest_M"] == 10
    gamma = content["boundary"]["gamma_0"]["probability"]
    assert eq_4(gamma, 0.02) == pytest.approx(20, rel=tol.EXACT)
    assert content["boundary"]["sensitive"] == "above" and gamma < 0.99


def test_the_table_says_the_same(capsys):
    assert main([*POINT, "--threshold", "20"]) == 0
    out = capsys.readouterr().out
    for text in ("22.37", "11.30", "0.668919", "0.988224", "above"):
        assert text in out


def test_margins_and_complements_reach_where_probabilities_cannot(capsys):
    far = run_json(capsys, "sensitivity", "--margin-ik", "700", "--margin-kj", "-700")
    assert far["dp_ij_dp_ik"]["log"] == pytest.approx(700 - 2 * math.log(2), rel=tol.ULP)
    by_complement = run_json(
        capsys, "sensitivity", "--complement-ik", "1e-300", "--complement-kj", "0.98"
    )
    assert by_complement["p_ik"]["margin"] == pytest.approx(300 * math.log(10), rel=tol.ULP)
    assert by_complement["p_kj"]["margin"] == pytest.approx(math.log(0.02 / 0.98), rel=tol.EXACT)
    assert main(["sensitivity", "--margin-ik", "-700", "--margin-kj", "-700"]) == 0
    assert "exp(-1400)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("p_kj", "level", "side"), [(0.5, 2, "nowhere"), (0.4, 0.1, "everywhere"), (0.98, 20, "below")]
)
def test_sides_of_the_boundary(p_kj, level, side, capsys):
    arguments = ("sensitivity", "--p-ik", "0.3", "--p-kj", str(p_kj), "--threshold", str(level))
    boundary = run_json(capsys, *arguments)["boundary"]
    assert boundary["sensitive"] == side
    assert ("gamma_0" in boundary) == (side == "below")
    assert main(list(arguments)) == 0
    said = {"nowhere": "No p_ik", "everywhere": "Every p_ik", "below": "below gamma_0"}[side]
    assert said in capsys.readouterr().out


def test_a_link_with_power_tails_has_a_far_end(capsys):
    arguments = ("sensitivity", "--margin-ik", "1", "--margin-kj", "3", "--link", "cauchit")
    boundary = run_json(capsys, *arguments, "--threshold", "4")["boundary"]
    assert boundary["sensitive"] == "between"
    ends = boundary["gamma_0"]["margin"], boundary["far_end"]["margin"]
    assert ends == pytest.approx((-2.268, -5.732), abs=1e-3)  # region_boundaries' own example


def test_a_ranking(capsys):
    content = run_json(capsys, "sensitivity", "--scores", "2,1,0", "--u", "0", "--v", "2")
    weights = [math.exp(s) for s in (2, 1, 0)]
    p = weights[0] / sum(weights) * weights[1] / (weights[1] + weights[2])
    assert content["p_omega"]["probability"] == pytest.approx(p, rel=tol.ULP)
    assert content["alpha"]["value"] == pytest.approx(1 + math.exp(-1), rel=tol.ULP)
    assert content["beta"]["value"] == pytest.approx(1 / (1 + math.exp(-1)), rel=tol.ULP)
    assert main(["sensitivity", "--scores", "-1,5,0"]) == 0
    assert "p_omega" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--p-ik", "1", "--p-kj", "0.5"], "--p-ik: expected a probability strictly between"),
        (["--p-ik", "0.5", "--p-kj", "nan"], "--p-kj"),
        (["--p-ik", "0.5", "--complement-kj", "-0.1"], "--complement-kj"),
        (["--margin-ik", "inf", "--p-kj", "0.5"], "--margin-ik: expected a finite margin"),
        (["--p-ik", "0.5"], "expected one of --p-kj, --complement-kj, --margin-kj; got none"),
        (["--p-ik", "0.5", "--margin-ik", "1", "--p-kj", "0.5"], "--p-ik and --margin-ik"),
        (["--p-ik", "0.5", "--p-kj", "0.5", "--threshold", "0"], "--threshold"),
        (["--p-ik", "0.5", "--p-kj", "0.5", "--link", "cloglog"], "Assumption 4"),
        (["--p-ik", "0.5", "--p-kj", "0.5", "--link", "logit"], "did you mean 'logistic'?"),
        (["--p-ik", "0.5", "--p-kj", "0.5", "--link", "student_t:x"], "student_t:NU"),
        (["--scores", "1,zwei"], "--scores: expected numbers with commas"),
        (["--scores", "1"], "K >= 2"),
        (["--scores", "1,inf"], "finite"),
        (["--scores", "1,0", "--v", "5"], "expected 0 <= u < v < K = 2"),
        (["--scores", "1,0", "--p-ik", "0.5"], "one of them"),
        (["--scores", "1,0", "--link", "probit"], "one of them"),
        (["--u", "0"], "expected --scores"),
    ],
)
def test_bad_points_are_refused_with_the_reason(arguments, said, capsys):
    assert said in refused(capsys, "sensitivity", *arguments)


# Regions


def proposition_1(m: float) -> float:
    return math.atanh(m**-0.5) / math.sqrt(m) - math.atanh(1 / m)


def test_areas_are_those_of_proposition_1(capsys):
    content = run_json(capsys, "region", "--threshold", "2", "--threshold", "5")
    for row, m in zip(content["areas"], (2, 5), strict=True):
        assert row["area"] == pytest.approx(proposition_1(m), rel=tol.EXACT)
        assert row["proposition_1"] == row["area"]
        assert row["method"] == "closed_form" and row["status"] == "converged"


def test_sampled_areas_agree_within_their_error(capsys):
    arguments = ("region", "--threshold", "2", "--method", "monte_carlo", "--samples", "20000")
    first = run_json(capsys, *arguments, "--seed", "3")["areas"][0]
    assert first["method"] == "monte_carlo"
    assert 0 < first["error"] < 0.01
    assert abs(first["area"] - proposition_1(2)) < tol.MONTE_CARLO * first["error"]
    assert run_json(capsys, *arguments, "--seed", "3")["areas"][0] == first
    assert run_json(capsys, *arguments, "--seed", "4")["areas"][0]["area"] != first["area"]


def test_other_links_have_no_proposition_1(capsys):
    content = run_json(capsys, "region", "--threshold", "2", "--link", "laplace")
    assert content["areas"][0]["area"] == pytest.approx(1 / 12, rel=tol.EXACT)
    assert content["areas"][0]["proposition_1"] is None
    assert main(["region", "--threshold", "2", "--link", "laplace"]) == 0
    assert "Proposition" not in capsys.readouterr().out


def test_plackett_luce_areas(capsys):
    content = run_json(capsys, "region", "--threshold", "2", "--alpha", "1.5", "--beta", "0.9")
    row = content["areas"][0]
    assert row["uv"] == pytest.approx(0.81 / (6 * 1.5 * 4), rel=tol.ULP)
    assert row["vu"] == pytest.approx(0.81 / (6 * 1.5**3 * 4), rel=tol.ULP)
    small = run_json(capsys, "region", "--threshold", "0.1", "--alpha", "1", "--beta", "1")
    assert small["areas"][0]["uv"] < 0.5 < small["areas"][0]["unclipped_uv"]
    edges = ("--threshold", "1e200", "--threshold", "1e-200", "--alpha", "1e120", "--beta", "0.9")
    for row in run_json(capsys, "region", *edges)["areas"]:
        assert 0 <= row["uv"] <= 0.5 and row["vu"] <= row["unclipped_vu"]
    assert main(["region", "--alpha", "1.5", "--beta", "0.9"]) == 0
    assert "Proposition 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--threshold", "0"], "--threshold"),
        (["--threshold", "-2"], "--threshold"),
        (["--threshold", "nan"], "--threshold"),
        (["--wrt", "ikk"], "did you mean 'ik'?"),
        (["--method", "monte-carlo"], "did you mean 'monte_carlo'?"),
        (["--samples", "100"], "--samples: expected --method lattice or monte_carlo"),
        (["--seed", "1", "--method", "quadrature"], "--seed"),
        (["--method", "monte_carlo", "--samples", "0"], "--samples"),
        (["--method", "lattice", "--samples", "63"], "--samples: expected a whole number of at"),
        (["--link", "cloglog"], "Assumption 4"),
        (["--alpha", "2"], "both or neither"),
        (["--alpha", "0.5", "--beta", "1"], "alpha"),
        (["--alpha", "2", "--beta", "1.5"], "beta"),
        (["--alpha", "2", "--beta", "1", "--link", "probit"], "--link"),
    ],
)
def test_bad_regions_are_refused_with_the_reason(arguments, said, capsys):
    assert said in refused(capsys, "region", *arguments)
