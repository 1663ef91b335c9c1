"""Published and foreign checkpoints -> checked tensors; ours are safetensors with their description inside."""
