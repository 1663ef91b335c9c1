"""Files from elsewhere -> files on this disk, the only code that touches the network.

What arrives lies beside its target as `<target>.download` until it was checked; a transfer that broke off
goes on there.
"""
