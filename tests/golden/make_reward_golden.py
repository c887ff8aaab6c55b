"""Write rewards.npz: scores of small random reward models, computed by transformers in PyTorch.

Run with torch installed: ``python tests/golden/make_reward_golden.py``. As make_golden.py does for
language models; the rows are of unequal lengths, padded behind.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
LENGTHS = (24, 17, 3)
PAD = 0
_LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 41,
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "pad_token_id": PAD,
    "num_labels": 1,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
_DEBERTA: dict[str, Any] = {
    "model_type": "deberta-v2",
    "vocab_size": 41,
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "relative_attention": True,
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
    "type_vocab_size": 0,
    "pooler_hidden_act": "gelu",
    "pad_token_id": PAD,
    "num_labels": 1,
}
CASES: dict[str, dict[str, Any]] = {
    "llama": {**_LLAMA, "rope_parameters": _LLAMA3},
    "mistral": {
        **_LLAMA,
        "model_type": "mistral",
        "sliding_window": 5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    },
    "nemotron": {
        **_LLAMA,
        "model_type": "nemotron",
        "head_dim": 8,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 777.0,
            "partial_rotary_factor": 0.5,
        },
    },
    "nemotron_llama": {**_LLAMA, "causal": True, "rope_parameters": _LLAMA3},
    "deberta": _DEBERTA,
}
"""What is compared; nemotron_llama is a language model whose token 0 is the reward."""


def torch_model(config: dict[str, Any], seed: int) -> Any:
    """Return transformers' model of a config, with random weights, norms and biases included."""
    import torch  # pyright: ignore[reportMissingImports]
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
    )

    torch.manual_seed(seed)
    given = {key: value for key, value in config.items() if key not in ("model_type", "causal")}
    made = AutoConfig.for_model(config["model_type"], **given)
    auto = AutoModelForCausalLM if config.get("causal") else AutoModelForSequenceClassification
    model = auto.from_config(made)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name.lower() or name.endswith("bias"):
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval().float()


def tokens(seed: int = 7) -> np.ndarray:
    """Return rows of token ids, padded behind."""
    rows = np.random.default_rng(seed).integers(1, 41, (len(LENGTHS), max(LENGTHS)))
    for row, length in zip(rows, LENGTHS, strict=True):
        row[length:] = PAD
    return rows.astype(np.int32)


def torch_scores(model: Any, rows: np.ndarray) -> np.ndarray:
    """Return transformers' score of each row."""
    import torch  # pyright: ignore[reportMissingImports]

    ids = torch.from_numpy(rows).long()
    with torch.no_grad():
        logits = model(ids, attention_mask=(ids != PAD).long()).logits.numpy()
    if logits.ndim == 2:
        return logits[:, 0]
    return logits[np.arange(len(rows)), np.array(LENGTHS) - 1, 0]


def main() -> None:
    """Write the file of weights and scores."""
    kept: dict[str, np.ndarray] = {}
    for seed, (case, config) in enumerate(CASES.items()):
        model = torch_model(config, seed)
        scores = torch_scores(model, tokens())
        kept[f"{case}/scores"] = scores
        kept[f"{case}/config"] = np.array(json.dumps(model.config.to_dict()))
        for name, weight in model.state_dict().items():
            kept[f"{case}/weights/{name}"] = weight.numpy()
        print(case, scores)
    np.savez_compressed(HERE / "rewards.npz", **kept)  # pyright: ignore[reportArgumentType]


def write_checkpoint(case: str, folder: Path) -> np.ndarray:
    """Write one case of rewards.npz as a Hugging Face folder; return the scores expected."""
    from safetensors.numpy import save_file

    with np.load(HERE / "rewards.npz") as kept:
        weights = {
            name.removeprefix(f"{case}/weights/"): kept[name]
            for name in kept
            if name.startswith(f"{case}/weights/")
        }
        (folder / "config.json").write_text(str(kept[f"{case}/config"]), encoding="utf-8")
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return kept[f"{case}/scores"]


if __name__ == "__main__":
    main()
