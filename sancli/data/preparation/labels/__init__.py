"""Files with labels, as people and challenges write them -> what images show, or the line that is wrong."""
