"""The parts of `san train`: what is decided, tried, gone on with, done epoch by epoch, and shown."""
