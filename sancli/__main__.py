"""`python -m sancli` is `san`; torchrun needs a module to start."""

from sancli.cli import main

main()
