"""Training: loops, losses over tokens, checkpoints."""
