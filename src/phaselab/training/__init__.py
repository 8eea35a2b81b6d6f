"""Language models trained from scratch, with checkpoints: the embedded default."""
