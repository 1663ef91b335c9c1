"""Folders and files -> images, labels and tensors."""
