"""Parts of `san prepare`: what is worth knowing about a run, and what is written."""
