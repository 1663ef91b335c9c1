"""One file per subcommand, read from top to bottom like a recipe; the only place where the parts meet."""
