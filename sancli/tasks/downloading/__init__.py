"""The parts of `san download-weights`."""
