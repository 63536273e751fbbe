"""Training without a model: ranks, optimizer, schedules, checkpoints, log."""
