"""Language models trained on preferences: decoders, data, losses, training, probes."""
