"""Results -> tables, CSV, JSON and pictures."""
