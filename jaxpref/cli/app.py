"""The program: its commands, and how it ends."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from . import _terminal
from .audit import audit
from .demo import demo
from .dpo import dpo
from .fit import fit
from .region import region
from .reproduce import reproduce
from .reward_rewrites import rewards
from .sensitivity import sensitivity
from .sweep import sweep

EPILOG = (
    "Start with: jaxpref demo. Exit codes: 0 done, 2 bad usage or bad input, "
    "3 did not converge or failed a check."
)

app = typer.Typer(
    name="jaxpref",
    help="Which predictions of a preference model hang by a thread, and on which observations.",
    epilog=EPILOG,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.command(rich_help_panel="Start here")(demo)
app.command(rich_help_panel="Data")(fit)
app.command(rich_help_panel="Data")(audit)
app.command(rich_help_panel="Language models")(dpo)
app.command(rich_help_panel="Language models")(sweep)
app.add_typer(rewards, name="rewards", rich_help_panel="Data")
app.command(rich_help_panel="Theory")(sensitivity)
app.command(rich_help_panel="Theory")(region)
app.command(rich_help_panel="Theory")(reproduce)


def _show_version(wanted: bool) -> bool:
    if wanted:
        from .. import __version__

        _terminal.write(f"jaxpref {__version__}\n")
        raise typer.Exit
    return wanted


@app.callback()
def start(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Which predictions of a preference model hang by a thread, and on which observations."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code; errors a user can mend end in one message."""
    _terminal.keep_going_on_odd_characters()
    try:
        words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
        code = app(args=words, prog_name="jaxpref", standalone_mode=False)
        _terminal.write("")
    except _terminal.ReaderGone:
        return 0
    except (KeyboardInterrupt, typer.Abort):
        return _end(130, "interrupted")
    except SystemExit as exit:
        return exit.code if isinstance(exit.code, int) else 1
    except Exception as error:
        return _end_with(error)
    return code if isinstance(code, int) else 0


def _end_with(error: Exception) -> int:
    """Return the exit code for an error, its message printed; raise what is no user's to mend."""
    usage = getattr(error, "format_message", None)
    if usage is not None:  # bad usage, as typer found it
        context = getattr(error, "ctx", None)
        where = context.command_path if context else "jaxpref"
        return _end(2, f"{usage().rstrip('.')}. Try: {where} --help")
    from .._checks import ConvergenceError, InputError

    if isinstance(error, InputError):
        return _end(2, str(error))
    if isinstance(error, ConvergenceError):
        return _end(3, str(error))
    raise error


def _end(code: int, message: str) -> int:
    if code == 130 and sys.stderr.isatty():
        sys.stderr.write("\n")
    _terminal.complain(message)
    return code
