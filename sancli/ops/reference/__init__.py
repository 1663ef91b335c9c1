"""Every operator in plain PyTorch: what runs where nothing faster is there, on any device.

No tensor wider than a tile of footprints is ever made, and backward is written out: it makes the tiles anew.
"""
