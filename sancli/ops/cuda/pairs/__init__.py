"""The passes of pairwise attention over all pairs of a pixel and one of its footprint (pairwise*.cu)."""
