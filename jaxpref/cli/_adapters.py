"""Options of low-rank adapters, which ``dpo`` and ``sweep`` share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..llm.lora import LoraOptions

FLAGS = {"rank": "--lora", "alpha": "--lora-alpha", "targets": "--lora-targets"}


def _option(help: str, **rest: Any) -> Any:
    return typer.Option(help=help, rich_help_panel="Adapters", **rest)


@dataclass(frozen=True)
class Adapters:
    """The adapters to train instead of the model, if any."""

    lora: Annotated[
        int | None,
        _option(
            "Train low-rank adapters of this rank on the model, which stays as it is.",
            show_default=False,
            metavar="RANK",
        ),
    ] = None
    lora_alpha: Annotated[
        float | None, _option("They count alpha / rank.", show_default="the rank")
    ] = None
    lora_targets: Annotated[
        str | None,
        _option(
            "Projections that get them: query, key, value, output, gate, up, down.",
            show_default="all",
            metavar="A,B",
        ),
    ] = None

    def options(self, model: Path) -> LoraOptions | None:
        """Return the options, checked against the model, messages naming the flag.

        Raises
        ------
        InputError
            If an option is given without a rank, or the model cannot have such adapters.

        Examples
        --------
        >>> Adapters(lora_alpha=8.0).options(Path("."))
        Traceback (most recent call last):
        ...
        jaxpref._checks.InputError: --lora-alpha: expected --lora RANK beside it
        """
        from .._checks import InputError

        for flag, value in (("alpha", self.lora_alpha), ("targets", self.lora_targets)):
            if self.lora is None and value is not None:
                raise InputError(f"{FLAGS[flag]}: expected --lora RANK beside it")
        if self.lora is None:
            return None
        from ..llm.config import decoder_config
        from ..llm.lora import LoraOptions, adapter_shapes

        chosen = None
        if self.lora_targets is not None:
            chosen = tuple(name.strip() for name in self.lora_targets.split(","))
        try:
            found = LoraOptions(self.lora, self.lora_alpha, chosen)
            adapter_shapes(decoder_config(model), found)
        except InputError as error:
            pattern = rf"^({'|'.join(FLAGS)}):"
            message = re.sub(pattern, lambda head: FLAGS[head[1]] + ":", str(error))
            raise InputError(message) from None
        return found
