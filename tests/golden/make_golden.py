"""Write golden.npz: logits of small random models, computed by transformers in PyTorch.

Run with torch installed: ``python tests/golden/make_golden.py``. The weights of each case and the
logits of two rows are kept, so that parity is tested where torch is not. Each case is one that
another implementation has been wrong about.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
LENGTH = 24
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
}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
CASES: dict[str, dict[str, Any]] = {
    "llama2_tied": {**_LLAMA, "num_key_value_heads": 4, "tie_word_embeddings": True},
    "llama_theta": {**_LLAMA, "rope_parameters": {"rope_type": "default", "rope_theta": 523.0}},
    "llama3_rope": {**_LLAMA, "rope_parameters": _LLAMA3},
    "llama_linear": {
        **_LLAMA,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "linear", "rope_theta": 777.0, "factor": 3.0},
    },
    "llama_biases": {**_LLAMA, "attention_bias": True, "mlp_bias": True, "head_dim": 10},
    "mistral_window": {
        **_LLAMA,
        "model_type": "mistral",
        "sliding_window": 5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    },
    "gpt2": {
        "model_type": "gpt2",
        "vocab_size": 41,
        "n_embd": 24,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 64,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "initializer_range": 0.2,
    },
}


def torch_model(config: dict[str, Any], seed: int) -> Any:
    """Return transformers' model of a config, with random weights, norms and biases included."""
    import torch  # pyright: ignore[reportMissingImports]
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    given = {key: value for key, value in config.items() if key != "model_type"}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **given))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "ln_" in name or name.endswith("bias"):
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval().float()


def tokens(vocabulary: int) -> np.ndarray:
    """Return two rows of token ids."""
    rows = np.random.default_rng(7).integers(0, vocabulary, (2, LENGTH))
    return rows.astype(np.int32)


def torch_logits(model: Any, rows: np.ndarray) -> np.ndarray:
    """Return transformers' logits of rows of tokens."""
    import torch  # pyright: ignore[reportMissingImports]

    with torch.no_grad():
        return model(torch.from_numpy(rows).long()).logits.numpy()


def main() -> None:
    """Write the file of weights and logits."""
    kept: dict[str, np.ndarray] = {}
    for seed, (case, config) in enumerate(CASES.items()):
        model = torch_model(config, seed)
        logits = torch_logits(model, tokens(config["vocab_size"]))
        kept[f"{case}/logits"] = logits
        kept[f"{case}/config"] = np.array(json.dumps(model.config.to_dict()))
        for name, weight in model.state_dict().items():
            if name == "lm_head.weight" and model.config.tie_word_embeddings:
                continue
            kept[f"{case}/weights/{name}"] = weight.numpy()
        print(case, f"logits with a standard deviation of {logits.std():.3f}")
    np.savez_compressed(HERE / "golden.npz", **kept)  # pyright: ignore[reportArgumentType]


def write_checkpoint(case: str, folder: Path, dtype: Any = np.float32) -> np.ndarray:
    """Write one case of golden.npz as a Hugging Face folder; return the logits expected."""
    from safetensors.numpy import save_file

    with np.load(HERE / "golden.npz") as kept:
        weights = {
            name.removeprefix(f"{case}/weights/"): kept[name].astype(dtype)
            for name in kept
            if name.startswith(f"{case}/weights/")
        }
        (folder / "config.json").write_text(str(kept[f"{case}/config"]), encoding="utf-8")
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return kept[f"{case}/logits"]


if __name__ == "__main__":
    main()
