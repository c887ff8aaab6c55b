"""Fits on disk: exact round trips, whole files or none, and clear refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxpref import links
from jaxpref._checks import DataError, InputError
from jaxpref.data import Comparisons, load_bundled
from jaxpref.data.graph import Components
from jaxpref.fit import FitResult, fit_pairwise
from jaxpref.fit.components import fit_components


def ties_at_home() -> Comparisons:
    names = ("Åland", 'say "hi"', "x,y")
    columns = np.array([[3, 1, 4, 2], [1, 2, 2, 3], [1, 0, 2, 1]], float)
    return Comparisons(names, np.array([0, 1, 2, 0]), np.array([1, 2, 0, 2]), *columns)


FITS = {
    "plain": lambda: fit_pairwise(load_bundled("journals")),
    "probit with a prior": lambda: fit_pairwise(
        load_bundled("baseball"), link=links.probit, ridge=0.5
    ),
    "ties and order": lambda: fit_pairwise(ties_at_home(), ties="davidson", order_effect=True),
    "covariates": lambda: fit_pairwise(
        ties_at_home(),
        ties="half",
        ridge=1.0,
        item_covariates={"size": np.array([1.0, 2.0, 4.0])},
        comparison_covariates={"length": np.array([0.1, -0.3, 0.2, 0.7])},
    ),
    "unfinished": lambda: fit_pairwise(load_bundled("baseball"), max_steps=1, throw=False),
    "component": lambda: fit_components(Comparisons.from_arrays(["x", "y", "x"], ["y", "x", "z"]))[
        0
    ],
}


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, arrays bit by bit and with their types."""
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(
            one, other, equal_nan=one.dtype.kind == "f"
        )
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Components):
        return same(one.labels, other.labels) and (one.count, one.sources, one.sinks) == (
            other.count,
            other.sources,
            other.sinks,
        )
    return one == other or (one != one and other != other)


@pytest.mark.parametrize("name", FITS)
def test_every_field_comes_back_as_it_was(name, tmp_path):
    fit = FITS[name]()
    fit.save(tmp_path / "fit.json")
    back = FitResult.load(tmp_path / "fit")
    for field in FitResult.__dataclass_fields__:
        if field not in ("link", "design"):
            assert same(getattr(fit, field), getattr(back, field)), field
    assert back.link.name == fit.link.name
    assert (back.design is None) == (fit.design is None)
    np.testing.assert_array_equal(fit.covariance(), back.covariance())
    assert fit.to_rows() == back.to_rows()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fit.json", "fit.npz"]


def test_saving_again_replaces_both_files(tmp_path):
    FITS["plain"]().save(tmp_path / "fit.json")
    FITS["probit with a prior"]().save(tmp_path / "fit.json")
    assert FitResult.load(tmp_path / "fit.json").link.name == "probit"


@pytest.fixture
def saved(tmp_path) -> Path:
    FITS["plain"]().save(tmp_path / "fit.json")
    return tmp_path / "fit.json"


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_unknown_version_is_refused_with_what_to_do(saved):
    rewrite(saved, version=99)
    with pytest.raises(DataError, match="expected version 1 .*got 99.*fit again"):
        FitResult.load(saved)


def test_other_json_and_damaged_json_are_refused(saved):
    saved.write_text('{"a": 1}')
    with pytest.raises(DataError, match="another kind of file"):
        FitResult.load(saved)
    saved.write_text("{")
    with pytest.raises(DataError, match="damaged"):
        FitResult.load(saved)


def test_files_of_different_fits_are_refused(saved, tmp_path):
    FITS["component"]().save(tmp_path / "other.json")
    (tmp_path / "other.npz").replace(tmp_path / "fit.npz")
    with pytest.raises(DataError, match="belong together"):
        FitResult.load(saved)


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*none.json"):
        FitResult.load(tmp_path / "none.json")
    with pytest.raises(InputError, match="folder that exists"):
        FITS["plain"]().save(tmp_path / "no" / "fit.json")
    with pytest.raises(InputError, match="ending in .json"):
        FITS["plain"]().save(tmp_path / "fit.pickle")


def test_frame_has_the_leaderboard_in_order():
    fit = FITS["plain"]()
    frame = fit.to_frame()
    assert frame["item"].to_list() == list(fit.rank())
    assert frame.columns == list(fit.to_frame(backend="dict"))
    assert list(fit.to_frame(backend="pandas")["rank"]) == [1, 2, 3, 4]
