"""A source of images, as people have them -> a prepared folder: read, checked, split, placed."""
