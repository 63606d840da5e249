"""Files of other projects: read without running anything, and the weights in them found."""
