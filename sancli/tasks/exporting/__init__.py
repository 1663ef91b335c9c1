"""The forms in which `san export` writes a model, one file each."""
