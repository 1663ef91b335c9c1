"""Asking a model about images: what eval, predict and the Python interface share."""
