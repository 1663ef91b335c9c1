"""Pages for a browser: one file each, with its pictures inside, and nothing that runs or is fetched."""
