"""Scores of reward models: readers, Table C2, triples in M-regions, fragile quadruples."""

from __future__ import annotations

import gzip
import itertools
import json
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxpref import DataError, InputError, log_sensitivity
from jaxpref.audit.dominance import bin_counts
from jaxpref.links import (
    by_name,
    cauchit,
    complementary_log_log,
    laplace,
    logistic,
    probit,
)
from jaxpref.rewards import (
    PUBLISHED,
    QuadrupleRule,
    Scores,
    common_step,
    fragile_quadruples,
    read_scores,
    reward_dominance,
    triple_shares,
)
from jaxpref.rewards.scores import short_float
from jaxpref.rewards.triples import TripleShares
from tests import tolerances as tol

VALUES = Path(__file__).parents[1] / "experiments" / "paper_values.json"


def make(*prompts: list[float]) -> Scores:
    """Return scores of prompts given as lists."""
    owner = [f"x{n}" for n, values in enumerate(prompts) for _ in values]
    names = [f"r{m}" for values in prompts for m in range(len(values))]
    return Scores.from_arrays(owner, names, [s for values in prompts for s in values])


def groups(scores: Scores) -> list[np.ndarray]:
    return np.split(scores.score, scores.start[1:-1])


def normal(prompts: int, size: int, sd: float, seed: int = 0) -> Scores:
    rows = np.random.default_rng(seed).normal(0, sd, (prompts, size))
    return make(*rows.tolist())


# Reading --------------------------------------------------------------------------------------

ROWS = [("x", "a", 1.5), ("x", "b", -0.25), ("y", "b", 2.0), ("y", "a", 3.0), ("x", "c", 0.0)]
CSV = "prompt,response,score\n" + "".join(f"{p},{r},{s}\n" for p, r, s in ROWS)
JSONL = "".join(json.dumps({"prompt": p, "response": r, "score": s}) + "\n" for p, r, s in ROWS)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def refused(folder: Path, text: str, name: str = "scores.csv", **options: object) -> str:
    with pytest.raises(InputError) as caught:
        read_scores(write(folder, name, text), **options)  # type: ignore[arg-type]
    return str(caught.value)


@pytest.mark.parametrize("name", ["s.csv", "s.csv.gz", "s.jsonl", "s.parquet"])
def test_every_format_says_the_same(tmp_path, name):
    if name.endswith("parquet"):
        pl.DataFrame(ROWS, schema=["prompt", "response", "score"], orient="row").write_parquet(
            tmp_path / name
        )
    else:
        write(tmp_path, name, JSONL if "jsonl" in name else CSV)
    found = read_scores(tmp_path / name)
    assert found.prompts == ("x", "y") and found.responses == ("a", "b", "c")
    assert found.score.tolist() == [1.5, -0.25, 0.0, 2.0, 3.0]
    assert found.response.tolist() == [0, 1, 2, 1, 0]
    assert found.start.tolist() == [0, 3, 5] and not found.paired and found.notes == ()
    assert found.num_pairs == 4


def test_pairs_are_recognised_and_named(tmp_path):
    text = "id,chosen_score,rejected_score\nq,1.0,2.0\nr,0.5,-1\n"
    found = read_scores(write(tmp_path, "p.csv", text))
    assert found.paired and found.score.tolist() == [1.0, 2.0, 0.5, -1.0]
    assert found.prompts == ("1", "2")
    named = read_scores(
        write(tmp_path, "q.csv", text.replace("chosen_score,rejected_score", "w,l")),
        prompt="id", chosen_score="w", rejected_score="l",
    )  # fmt: skip
    assert named.prompts == ("q", "r") and named.score.tolist() == found.score.tolist()
    assert "both columns or neither" in refused(tmp_path, text, chosen_score="chosen_score")


def test_prompts_told_apart_by_two_columns_and_rows_chosen(tmp_path):
    text = "set,id,model,score\n" + "".join(
        f"{s},{p},{m},{len(s) + p + k}\n"
        for s in ("one", "three") for p in (0, 1) for k, m in enumerate("ab")
    )  # fmt: skip
    path = write(tmp_path, "s.csv", text)
    message = refused(tmp_path, text, prompt="id")
    assert "row 5 (line 6 of the file)" in message and "given twice" in message
    assert "--prompt" in message and "3 more rows like it" in message
    both = read_scores(path, prompt=("set", "id"))
    assert both.prompts == ("one | 0", "one | 1", "three | 0", "three | 1")
    chosen = read_scores(path, prompt="id", where={"set": "three"})
    assert chosen.num_prompts == 2 and chosen.score.tolist() == [5, 6, 6, 7]
    assert "it holds 'one', 'three'" in refused(tmp_path, text, prompt="id", where={"set": "two"})


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf", "", "high", "1e999"])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_scores_that_are_no_finite_number_are_named_with_their_row(tmp_path, bad, kind):
    if kind == "csv":
        text = CSV.replace("y,b,2.0", f"y,b,{bad}")
    else:
        word = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity", "1e999": "1e999"}.get(bad)
        text = JSONL.replace("2.0", word or json.dumps(bad))
    message = refused(tmp_path, text, f"s.{kind}")
    line = 4 if kind == "csv" else 3
    assert f"row 3 (line {line} of the file)" in message
    assert "score: expected a score, a finite number; got" in message


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_a_pair_without_a_finite_score_is_named(side):
    columns = {"chosen": [1.0, 2.0], "rejected": [0.0, 1.0]}
    columns[side][1] = math.nan
    with pytest.raises(DataError, match=f"row 2: {side}_score: expected a score"):
        Scores.from_pairs(**columns)


def test_missing_names_and_repeated_responses_are_named(tmp_path):
    assert "row 3 (line 4 of the file)" in refused(tmp_path, CSV.replace("y,b,", ",b,"))
    assert "name of a response" in refused(tmp_path, CSV.replace("y,b,", "y,,"))
    message = refused(tmp_path, CSV.replace("x,c,0.0", "x,a,0.0"))
    assert "row 5 (line 6 of the file): response 'a' is given twice for prompt 'x'" in message


def test_a_prompt_with_one_response_is_refused_or_left_out(tmp_path):
    text = CSV + "z,a,1.0\n"
    message = refused(tmp_path, text)
    assert "row 6 (line 7 of the file): prompt 'z' has one response" in message
    assert "--drop-lone" in message
    found = read_scores(write(tmp_path, "s.csv", text), lone="drop")
    assert found.prompts == ("x", "y")
    assert found.notes == ("Left out: 1 prompt with one response, which compare nothing.",)
    alone = "prompt,response,score\nx,a,1\ny,a,2\n"
    assert "every prompt has one response" in refused(tmp_path, alone, lone="drop")


def test_columns_that_cannot_be_told_are_listed(tmp_path):
    message = refused(tmp_path, "a,b,c\n1,2,3\n")
    assert "cannot tell which column holds the prompt" in message and "'a', 'b', 'c'" in message
    assert "no column 'scor' for score= (closest: 'score')" in refused(tmp_path, CSV, score="scor")
    assert "no rows of data" in refused(tmp_path, "prompt,response,score\n")
    assert "is not JSON" in refused(tmp_path, JSONL + "{oops\n", "s.jsonl")
    assert "lone: expected one of" in refused(tmp_path, CSV, lone="maybe")
    with pytest.raises(InputError, match="equal lengths; got 2 in prompt, 2 in response, 1 in"):
        Scores.from_arrays(["x", "x"], ["a", "b"], [1.0])
    with pytest.raises(InputError, match=r"score: expected a column; got an array of shape \(1, 2"):
        Scores.from_arrays(["x", "x"], ["a", "b"], [[1.0, 2.0]])


@pytest.mark.parametrize("step", [0.25, 0.1, 1.0, 0.015625])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_common_step_is_found(step, dtype):
    ticks = np.random.default_rng(0).integers(-40, 40, 60)
    scores = (ticks * step).astype(dtype).astype(np.float64) + 0.5
    assert common_step(scores) == pytest.approx(step, rel=1e-5)


def test_scores_without_a_step_have_none():
    rng = np.random.default_rng(1)
    assert common_step(rng.normal(0, 3, 5000)) is None
    assert common_step(rng.normal(0, 3, 5000).astype(np.float16).astype(float)) is None
    assert common_step(np.full(20, 1.5)) is None
    assert common_step(np.arange(5) * 0.25) is None  # too few to say
    assert common_step(1e9 + 0.25 * np.arange(50)) is None  # lost in rounding


def test_coarse_scores_and_equal_ones_are_told():
    ticks = np.random.default_rng(2).permutation(24)
    found = make((0.25 * ticks).tolist())
    assert len(found.notes) == 1 and "multiples of 0.25 nats" in found.notes[0]
    twice = make([1.0, 1.0, math.pi], [0.1, 0.2])
    assert twice.notes == (
        "2 responses have exactly the score of another one to their prompt: duplicates? The "
        "first: prompt 'x0'.",
    )
    pairs = Scores.from_pairs([1.0, 2.0], [1.0, 0.0])
    assert "1 pair has equal scores" in pairs.notes[0] and "pair '1'" in pairs.notes[0]


def test_scores_rounded_to_a_short_type_are_told():
    exact = np.random.default_rng(7).normal(-15, 8, 400).astype(np.float32)
    rounded = np.asarray(jnp.asarray(exact, jnp.bfloat16), np.float64)
    assert common_step(rounded) is None  # those near 0 lie close to each other
    assert 32 < abs(rounded).max() < 64 and short_float(rounded) == ("bfloat16", 0.25)
    assert short_float(8 * exact.astype(np.float16).astype(float)) == ("float16", 0.25)
    assert short_float(exact.astype(np.float64)) is None
    assert short_float(rounded / 1024) is None  # as fine as it matters
    assert short_float(np.zeros(400)) is None
    (note,) = (note for note in make(rounded.tolist()).notes if "quantised" in note)
    assert "they are bfloat16 numbers, 0.25 nats apart at the largest" in note


# Table C2 -------------------------------------------------------------------------------------


def test_the_published_columns_are_the_papers():
    table = json.loads(VALUES.read_text(encoding="utf-8"))["table_c2"]
    for name, column in PUBLISHED.items():
        assert [int(text.replace(",", "")) for text in table[name]] == list(column)
        assert sum(column) == 8552


@pytest.mark.parametrize("link", [logistic, probit, cauchit], ids=lambda link: link.name)
def test_bins_of_all_pairs_are_those_of_a_loop(link):
    scores = make(*np.random.default_rng(3).normal(0, 2, (4, 9)).tolist(), [1.0, -4.0, 1.0])
    margins = np.concatenate(
        [[a - b for a, b in itertools.combinations(row, 2)] for row in groups(scores)]
    )
    p, q = (np.asarray(link.probability(sign * margins)) for sign in (1.0, -1.0))
    found = reward_dominance(scores, link=link)
    assert [row.pairs for row in found.bins] == bin_counts(p, q).tolist()
    assert sum(row.share for row in found.bins) == pytest.approx(1, rel=tol.ULP)
    assert found.agreement is None and not found.directed
    assert found.variance == pytest.approx(np.mean(margins**2) / 2, rel=tol.EXACT)


def test_bins_of_pairs_keep_who_was_chosen():
    margins = np.array([-4.0, -2.5, -1.0, 0.0, 2.0, 3.0, 5.0, 6.0])
    found = reward_dominance(Scores.from_pairs(margins, np.zeros(8)))
    assert [row.pairs for row in found.bins] == [1, 1, 3, 1, 2]
    assert found.agreement == 4.5 / 8 and found.triples.total == 0
    assert found.variance == pytest.approx(np.mean(margins**2) / 2, rel=tol.ULP)
    assert found.triples.to_dict()["regions"][0]["share"] is None


def test_the_edge_of_a_bin_belongs_to_the_upper_one():
    edge = float(logistic.margin(0.99))
    found = reward_dominance(Scores.from_pairs([edge, edge - 1e-9], [0.0, 0.0]))
    assert [row.pairs for row in found.bins] == [0, 0, 0, 1, 1]


def test_variance_and_bins_of_normal_scores_are_the_logit_normals():
    found = reward_dominance(normal(4000, 4, math.sqrt(1.7)), thresholds=(2.0,))
    assert found.variance_error is not None
    assert abs(found.variance - 1.7) < tol.MONTE_CARLO * found.variance_error
    assert found.variance_error == pytest.approx(1.7 * math.sqrt(2 / 12000), rel=0.1)
    for row in found.bins:
        error = math.sqrt(row.fitted / 12000)  # of n - 1 free contrasts a prompt
        assert abs(row.share - row.fitted) < tol.MONTE_CARLO * error


@pytest.mark.parametrize(
    ("link", "critical"), [(logistic, 1.0), (probit, 0.5), (cauchit, 0.25), (laplace, 0.0)],
    ids=["logistic", "probit", "cauchit", "laplace"],
)  # fmt: skip
def test_two_modes_begin_at_the_critical_variance(link, critical):
    found = reward_dominance(normal(3, 4, 1.0), link=link, thresholds=(2.0,))
    assert found.critical_variance == pytest.approx(critical, abs=1e-3)
    for factor, dips in ((0.9, False), (1.1, True)):
        variance = max(factor * critical, 1e-2)
        t = np.array([0.0, 0.02])
        log_density = -(t**2) / (4 * variance) - np.asarray(link.log_density(t))
        assert (log_density[1] > log_density[0]) == (dips or critical == 0)


def test_the_dominance_speaks_in_a_sentence():
    wide, narrow = normal(50, 5, 3.0), normal(50, 5, 0.3)
    found = [reward_dominance(scores, thresholds=(2.0,)) for scores in (wide, narrow)]
    assert "two modes" in found[0].sentence and found[0].bimodal
    assert "one mode" in found[1].sentence and not found[1].bimodal
    content = found[0].to_dict()
    assert len(content["bins"]) == 5 and set(content["published"]) == set(PUBLISHED)
    assert reward_dominance(make([1.0, 2.0])).variance_error is None
    same = reward_dominance(make([1.0, 1.0], [2.0, 2.0]))
    assert [row.fitted for row in same.bins] == [0, 0, 1, 0, 0] and same.variance == 0


# Triples --------------------------------------------------------------------------------------


def loop_triples(scores: Scores, link, levels: tuple[float, ...]) -> list[int]:
    triples = [t for row in groups(scores) for t in itertools.permutations(row.tolist(), 3)]
    i, k, j = np.array(triples).T
    logs = np.asarray(log_sensitivity(i - k, k - j, link=link)[0])
    return [int(np.sum(logs > math.log(level))) for level in levels]


@pytest.mark.parametrize("link", [logistic, cauchit], ids=lambda link: link.name)
def test_triples_are_those_of_a_loop(link):
    rng = np.random.default_rng(4)
    scores = make(*(rng.normal(0, 3, size).tolist() for size in (2, 3, 5, 5, 6)))
    levels = (0.5, 1.01, 3.0, 20.0)
    found = triple_shares(scores, link=link, thresholds=levels)
    assert found.method == "exact" and found.errors == (0, 0, 0, 0)
    assert found.total == sum(n * (n - 1) * (n - 2) for n in (2, 3, 5, 5, 6))
    assert list(found.inside) == loop_triples(scores, link, levels)
    assert found.inside[0] > found.inside[1] > found.inside[3]


def test_sampled_triples_agree_with_all_of_them_within_their_error():
    scores = make(np.random.default_rng(5).normal(0, 3, 300).tolist(), [1.0, 2.0, 3.0])
    every = triple_shares(scores, thresholds=(2.0, 10.0))
    some = triple_shares(scores, thresholds=(2.0, 10.0), most_first=60, seed=1)
    assert (every.method, some.method) == ("exact", "sampled")
    assert some == triple_shares(scores, thresholds=(2.0, 10.0), most_first=60, seed=1)
    for exact, estimate, error in zip(every.inside, some.inside, some.errors, strict=True):
        assert 0 < error < exact and 0 < abs(estimate - exact) < tol.MONTE_CARLO * error


def test_the_samples_error_is_right_on_average():
    scores = make(np.random.default_rng(6).normal(0, 3, 60).tolist())
    exact = triple_shares(scores, thresholds=(3.0,)).inside[0]
    runs: list[TripleShares] = [
        triple_shares(scores, thresholds=(3.0,), most_first=15, seed=seed) for seed in range(200)
    ]
    scaled = [(run.inside[0] - exact) / run.errors[0] for run in runs]
    assert abs(np.mean(scaled)) < 0.4 and 0.8 < np.std(scaled) < 1.3


def test_thresholds_are_checked():
    with pytest.raises(InputError, match="thresholds"):
        triple_shares(make([1.0, 2.0, 3.0]), thresholds=(0.0,))


# Quadruples -----------------------------------------------------------------------------------


def loop_quadruples(scores: Scores, link, rule: QuadrupleRule) -> list[tuple[int, ...]]:
    """Return (prompt, i, i', k, j) of all quadruples, by the definition, in margins."""
    near = (rule.near - rule.tolerance, rule.near + rule.tolerance)
    strong, low, high, weak = (float(link.margin(p)) for p in (rule.strong, *near, rule.weak))
    found = []
    for number, row in enumerate(groups(scores)):
        s = row.tolist()
        for i, prime, k, j in itertools.permutations(range(len(s)), 4):
            if s[i] - s[k] >= strong and low <= s[prime] - s[k] <= high:
                if s[k] - s[j] <= weak and s[prime] < s[j] < s[i]:
                    found.append((number, i, prime, k, j))
    return found


# Log densities up to a constant, which differences lose.
DENSITIES = {
    "logistic": lambda m: -np.abs(m) - 2 * np.log1p(np.exp(-np.abs(m))),
    "cauchit": lambda m: -np.log1p(m**2),
    "laplace": lambda m: -np.abs(m),
}


def worths(scores: Scores, link, places: list[tuple[int, ...]]) -> list[tuple[float, float]]:
    """Return the log-sensitivity and the gap of each quadruple."""
    rows = groups(scores)
    s = np.array([[rows[p][m] for m in (i, prime, k, j)] for p, i, prime, k, j in places])
    s = s.reshape(-1, 4).T
    logs = [DENSITIES[link.name](s[0] - s[at]) for at in (3, 2)]
    return list(zip((logs[0] - logs[1]).tolist(), (s[0] - s[1]).tolist(), strict=True))


# A grid of steps makes ties, and scores at the very ends of the windows.
GRID = st.lists(st.sampled_from([0.0, 0.25, 3.5, 3.75, 4.0, 4.25, 4.5, 4.75, 8.0, 8.25, 9.0]),
                min_size=2, max_size=7)  # fmt: skip
FREE = st.lists(st.floats(-3, 9, width=32), min_size=4, max_size=7)


@settings(max_examples=25, deadline=None)
@given(prompts=st.lists(st.one_of(GRID, FREE), min_size=1, max_size=2), wide=st.booleans())
def test_counts_and_both_orders_are_those_of_a_loop(prompts, wide):
    agrees_with_the_loop(prompts, logistic, wide)


@pytest.mark.parametrize("link", ["cauchit", "laplace"])
def test_other_links_have_the_quadruples_of_a_loop(link):
    rows = np.random.default_rng(8).normal(0, 8, (2, 8))
    agrees_with_the_loop(rows.tolist(), by_name(link), True)


def agrees_with_the_loop(prompts: list[list[float]], link, wide: bool) -> None:
    rule = QuadrupleRule(0.97, 0.9, 0.09, 0.1) if wide else QuadrupleRule()
    scores = make([0.0, 4.0, 4.2, 5.0], *prompts)
    every = loop_quadruples(scores, link, rule)
    found = fragile_quadruples(scores, link=link, rule=rule, top=len(every) + 1)
    assert found.total == len(every) == len(found.top)
    owners = [place[0] for place in every]
    assert list(found.by_prompt) == [owners.count(n) for n in range(scores.num_prompts)]
    assert found.prompts_with == len(set(owners))
    values = worths(scores, link, every)
    expected = sorted((w for w, _ in values), reverse=True)
    got = [row.log_sensitivity for row in found.top]
    np.testing.assert_allclose(got, expected, atol=tol.EXACT)
    named = {
        (row.prompt, row.response_i, row.response_i_prime, row.response_k, row.response_j)
        for row in found.top
    }
    assert named == {(f"x{p[0]}", *(f"r{m}" for m in p[1:])) for p in every}
    some = max(len(every) // 2, 1)
    close = fragile_quadruples(scores, link=link, rule=rule, top=some, rank="closeness")
    gaps = sorted((gap, -w) for w, gap in values)[:some]
    np.testing.assert_allclose([row.gap for row in close.top], [gap for gap, _ in gaps])
    assert len({tuple(row[:5]) for row in close.top}) == len(gaps)
    first = fragile_quadruples(scores, link=link, rule=rule, top=some)
    got = [row.log_sensitivity for row in first.top]
    np.testing.assert_allclose(got, expected[:some], atol=tol.EXACT)


@pytest.mark.parametrize("size", [6, 24])
def test_many_prompts_at_once_are_those_of_a_loop(size):
    scores = normal(12, size, 3.0, seed=size)
    every = loop_quadruples(scores, logistic, QuadrupleRule())
    found = fragile_quadruples(scores, top=25)
    assert found.total == len(every) and (size == 6 or len(every) > 100)
    ranked = sorted((-w, gap) for w, gap in worths(scores, logistic, every))
    assert [(-row.log_sensitivity, row.gap) for row in found.top] == [
        (pytest.approx(key, abs=tol.EXACT), pytest.approx(gap)) for key, gap in ranked[:25]
    ]


def test_a_quadruple_has_table_c3s_preferences():
    table = {
        name: float(text)
        for name, text in json.loads(VALUES.read_text(encoding="utf-8"))["table_c3"].items()
    }
    margin = {name: math.log(p / (1 - p)) for name, p in table.items()}
    i, prime, j = margin["p_ik"], margin["p_i'k"], -margin["p_kj"]
    row = fragile_quadruples(make([i, prime, 0.0, j])).top[0]
    names = row.response_i, row.response_i_prime, row.response_k, row.response_j
    assert names == ("r0", "r1", "r2", "r3") and row.prompt == "x0"
    assert row.p_ik == pytest.approx(table["p_ik"], rel=tol.EXACT)
    assert row.p_i_prime_k == pytest.approx(table["p_i'k"], rel=tol.EXACT)
    assert row.p_kj == pytest.approx(table["p_kj"], rel=tol.EXACT)
    assert row.p_ij == pytest.approx(table["p_ij"], abs=1e-3)  # the printed inputs are rounded
    assert row.p_i_prime_j == pytest.approx(table["p_i'j"], abs=1e-3)
    slope = (row.p_ij - row.p_i_prime_j) / (row.p_ik - row.p_i_prime_k)
    assert row.amplification == pytest.approx(slope, rel=1e-9)
    assert row.gap == pytest.approx(i - prime, rel=tol.EXACT)


def test_the_count_is_exact_beyond_64_bits():
    # All i' equal, all j equal, all i equal: the count is the product of the four numbers.
    number = 150_000
    values = np.repeat([0.0, 3.9, 4.0, 5.0], number)
    response = np.arange(4 * number, dtype=np.int32)
    bounds = np.array([0, 4 * number], dtype=np.int64)
    names = tuple(map(str, range(4 * number)))
    found = fragile_quadruples(Scores(("x",), names, response, values, bounds), top=3)
    assert found.total == number**4 > 2**63
    each = (row[1:5] for row in found.top)  # the names of i, i', k and j
    assert len(set(each)) == 3


@pytest.mark.parametrize("find", [reward_dominance, fragile_quadruples])
def test_a_link_that_is_not_symmetric_is_refused(find):
    with pytest.raises(InputError, match="expected a symmetric link"):
        find(make([0.0, 1.0, 2.0, 3.0]), link=complementary_log_log(allow_asymmetric=True))


def test_quadruples_refuse_what_cannot_have_any():
    with pytest.raises(InputError, match="at least 4 responses; the largest has 2"):
        fragile_quadruples(Scores.from_pairs([1.0], [0.0]))
    four = make([0.0, 1.0, 2.0, 3.0])
    assert fragile_quadruples(four).to_dict()["total"] == 0
    for rule, name in (
        (QuadrupleRule(strong=1.0), r"strong: expected .* between 0 and 1; got 1\b"),
        (QuadrupleRule(weak=0.0), "weak: expected .* between 0 and 1; got 0"),
        (QuadrupleRule(weak=0.7), "weak"),
        (QuadrupleRule(tolerance=0.02), "tolerance"),
        (QuadrupleRule(near=math.nan), "near"),
    ):
        with pytest.raises(InputError, match=name):
            fragile_quadruples(four, rule=rule)
    with pytest.raises(InputError, match="rank: expected one of"):
        fragile_quadruples(four, rank="best")


@pytest.mark.shared_data
def test_real_scores_have_the_bins_their_source_counts(shared_data):
    path = shared_data / "ko_rm_judge_scores" / "scores.csv.gz"
    found = read_scores(path, prompt="prompt_id", where={"dataset": "alpaca-eval-ko"})
    assert found.num_prompts == 797 and found.num_pairs == 28764
    bins = reward_dominance(found).bins
    assert [2 * row.pairs for row in bins] == [792, 1476, 52992, 2242, 26]
