"""Several processes that train one model: joining, waiting for each other, agreeing.

JAX's own runtime does the work (``jax.distributed``); on processors its collectives are gloo's.
Every process runs the same commands on the same files, so a folder to write to has to be one that
all of them see; the first process writes what is written once.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from .._checks import InputError

_ADDRESS = re.compile(r"(?P<address>[^,\s]+:\d+),(?P<index>\d+),(?P<count>\d+)")


def join(text: str) -> None:
    """Join the other processes of a run; to be called before anything is computed.

    Parameters
    ----------
    text : str
        ``HOST:PORT,INDEX,COUNT``: where process 0 listens, this process's number from 0, and how
        many there are; or ``auto``, where JAX finds that out (Slurm, Open MPI, Kubernetes).

    Raises
    ------
    InputError
        If the text is none of that, or the others cannot be reached.
    """
    if text == "auto":
        arguments: dict[str, Any] = {}
    else:
        found = _ADDRESS.fullmatch(text)
        if found is None or not int(found["index"]) < int(found["count"]):
            raise InputError(
                "distributed: expected auto or HOST:PORT,INDEX,COUNT with INDEX below COUNT; "
                f"got {text!r}"
            )
        arguments = {
            "coordinator_address": found["address"],
            "num_processes": int(found["count"]),
            "process_id": int(found["index"]),
        }
    try:
        jax.distributed.initialize(**arguments)
        with _gloo_aside():
            wait("joined")
    except (RuntimeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise InputError(f"distributed: cannot join the other processes: {reason}") from None


@contextmanager
def _gloo_aside() -> Iterator[None]:
    """Send what is written to standard output to standard error: gloo says there whom it met."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def is_first() -> bool:
    """Return whether this process writes what is written once; so does one alone."""
    return jax.process_index() == 0


def wait(what: str) -> None:
    """Wait until every process is here; `what` names the place."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(what)


def agreed(mine: int) -> int:
    """Return the first process's number, for all to decide by."""
    if jax.process_count() == 1:
        return mine
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.int32(mine)))
