"""Losses and gradients of TRL 1.16's own code, on log-probabilities made up here.

``python tests/golden/make_trl_losses.py`` writes ``trl_losses.json``, with trl 1.16 and torch 2.13.
A stub stands in for trainer and model, so that exactly TRL's arithmetic between the token
log-probabilities and the loss runs, one pair at a time.
"""

from __future__ import annotations

import importlib
import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

PAIRS = (
    # policy chosen, rejected; reference chosen, rejected; tokens of chosen, rejected
    (-3.0, -7.0, -3.0, -7.0, 3, 7),
    (-12.5, -9.25, -14.0, -8.0, 5, 4),
    (-40.0, -90.0, -35.0, -20.0, 11, 23),
    (-250.0, -30.0, -20.0, -28.0, 60, 9),
    (-0.125, -0.0625, -2.0, -3.0, 1, 2),
)
CASES = (
    ("dpo", "sigmoid", {"beta": 0.1}),
    ("dpo_strong", "sigmoid", {"beta": 2.0}),
    ("robust_dpo", "robust", {"beta": 0.3, "label_smoothing": 0.2}),
    ("ipo_per_token", "ipo", {"beta": 0.25}),
    ("rpo", ("sigmoid", "sft"), {"beta": 0.1, "weights": (1.0, 0.5)}),
)


def measure() -> dict[str, Any]:
    """Return loss and gradient of every case on every pair."""
    cases = {
        name: [_one(types, settings, pair) for pair in PAIRS] for name, types, settings in CASES
    }
    cases["simpo"] = [_simpo(pair, beta=2.0, gamma=1.5, eps=0.0) for pair in PAIRS]
    cases["conservative_dpo"] = [_conservative(pair, beta=0.1, eps=0.3) for pair in PAIRS]
    return {"trl": importlib.import_module("trl").__version__, "pairs": PAIRS, "cases": cases}


def _one(types: Any, settings: dict[str, Any], pair: tuple) -> dict[str, Any]:
    """Run ``DPOTrainer._compute_loss`` on one pair."""
    torch: Any = importlib.import_module("torch")
    trainer: Any = importlib.import_module("trl").DPOTrainer
    logps, inputs = _batch(torch, pair)
    shape = inputs["completion_mask"][:, 1:].shape
    zeros = torch.zeros(shape, dtype=torch.float64)
    outputs = SimpleNamespace(
        log_probs=_spread(logps, inputs["completion_mask"][:, 1:]),
        entropy=zeros,
        mean_logits=zeros,
        is_top1=zeros.bool(),
    )
    types = (types,) if isinstance(types, str) else types
    stub = _stub(torch, types, settings)
    loss = trainer._compute_loss(stub, lambda **_: outputs, inputs, False)
    loss.backward()
    return {"loss": loss.item(), "gradient": logps.grad.tolist()}


def _stub(torch: Any, types: tuple[str, ...], settings: dict[str, Any]) -> Any:
    accelerator = SimpleNamespace(
        device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x
    )
    return SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=accelerator,
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=types,
        loss_weights=settings.get("weights", (1.0,)),
        beta=settings["beta"],
        label_smoothing=settings.get("label_smoothing", 0.0),
        use_weighting=False,
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )


def _batch(torch: Any, pair: tuple) -> tuple[Any, dict[str, Any]]:
    """Return leaf log-probabilities, and inputs of one prompt token and the completions."""
    chosen, rejected, reference_chosen, reference_rejected, *lengths = pair
    logps = torch.tensor([chosen, rejected], dtype=torch.float64, requires_grad=True)
    places = torch.arange(1 + max(lengths))
    mask = torch.stack([(places >= 1) & (places <= length) for length in lengths]).long()
    return logps, {
        "input_ids": torch.zeros_like(mask),
        "attention_mask": torch.ones_like(mask),
        "completion_mask": mask,
        "ref_chosen_logps": torch.tensor([reference_chosen], dtype=torch.float64),
        "ref_rejected_logps": torch.tensor([reference_rejected], dtype=torch.float64),
    }


def _spread(logps: Any, mask: Any) -> Any:
    """Return token log-probabilities that sum to those of the completions."""
    return logps[:, None] * mask / mask.sum(dim=1, keepdim=True)


def _simpo(pair: tuple, *, beta: float, gamma: float, eps: float) -> dict[str, Any]:
    """Run ``CPOTrainer.cpo_loss`` with per-token averages, which are what SimPO hands it."""
    chosen, rejected, _, _, *lengths = pair
    return _cpo((chosen, rejected), tuple(lengths), "simpo", beta=beta, gamma=gamma, eps=eps)


def _conservative(pair: tuple, *, beta: float, eps: float) -> dict[str, Any]:
    """Run ``CPOTrainer.cpo_loss`` on the log-ratios: the conservative form of the DPO loss."""
    chosen, rejected, reference_chosen, reference_rejected, *_ = pair
    ratios = (chosen - reference_chosen, rejected - reference_rejected)
    return _cpo(ratios, (1, 1), "sigmoid", beta=beta, gamma=0.0, eps=eps)


def _cpo(
    logps: tuple, lengths: tuple, loss_type: str, *, beta: float, gamma: float, eps: float
) -> dict[str, Any]:
    torch: Any = importlib.import_module("torch")
    trainer: Any = importlib.import_module("trl.experimental.cpo").CPOTrainer
    leaves = torch.tensor(logps, dtype=torch.float64, requires_grad=True)
    rates = leaves / torch.tensor(lengths, dtype=torch.float64)
    stub = SimpleNamespace(
        accelerator=SimpleNamespace(device=torch.device("cpu")),
        beta=beta,
        loss_type=loss_type,
        simpo_gamma=gamma,
        label_smoothing=eps,
        alpha=0.0,
    )
    loss = trainer.cpo_loss(stub, rates[:1], rates[1:])[0].sum()
    loss.backward()
    return {"loss": loss.item(), "gradient": leaves.grad.tolist()}


if __name__ == "__main__":
    target = Path(__file__).with_name("trl_losses.json")
    target.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
