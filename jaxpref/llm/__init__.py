"""Language models trained on preferences: decoders, data, losses, training, probes.

Needs the extra ``llm`` (flax, optax, orbax-checkpoint, safetensors, transformers); nothing else of
the package imports it.
"""

from .checkpoints import load_model
from .config import DecoderConfig, RopeConfig, decoder_config
from .decoder import LanguageModel, hidden_states, initial_model, vocabulary_logits

__all__ = [
    "DecoderConfig",
    "RopeConfig",
    "decoder_config",
    "LanguageModel",
    "initial_model",
    "load_model",
    "hidden_states",
    "vocabulary_logits",
]
