"""Language models trained on preferences: decoders, data, losses, training, probes.

Needs the extra ``llm`` (flax, optax, orbax-checkpoint, safetensors, transformers); nothing else of
the package imports it.
"""

from .checkpoints import load_model, save_model
from .config import DecoderConfig, RopeConfig, decoder_config
from .decoder import LanguageModel, hidden_states, initial_model, vocabulary_logits
from .generate import generate
from .population import Members, train_population
from .preference_sweep import (
    PreferenceMember,
    PreferenceSweepOptions,
    preference_grid,
    sweep_preferences,
)
from .probe import exact_probe, sampled_probe
from .reward_models import RewardModel, load_reward_model, reward_model, save_reward_model
from .reward_scoring import score_records, score_sequences
from .reward_training import RewardOptions, train_reward_model
from .rewrites import find_flips
from .sweep import Member, SweepOptions, sweep, sweep_grid
from .tokenizers import decode, encode_completion, encode_prompt, load_tokenizer
from .trainer import TrainOptions, TrainResult, supervised_fine_tune, train_preferences

__all__ = [
    "DecoderConfig",
    "RopeConfig",
    "decoder_config",
    "LanguageModel",
    "initial_model",
    "load_model",
    "save_model",
    "hidden_states",
    "vocabulary_logits",
    "generate",
    "load_tokenizer",
    "encode_prompt",
    "encode_completion",
    "decode",
    "TrainOptions",
    "TrainResult",
    "train_preferences",
    "supervised_fine_tune",
    "exact_probe",
    "sampled_probe",
    "Members",
    "train_population",
    "Member",
    "SweepOptions",
    "sweep_grid",
    "sweep",
    "PreferenceMember",
    "PreferenceSweepOptions",
    "preference_grid",
    "sweep_preferences",
    "RewardModel",
    "load_reward_model",
    "reward_model",
    "save_reward_model",
    "score_sequences",
    "score_records",
    "RewardOptions",
    "train_reward_model",
    "find_flips",
]
