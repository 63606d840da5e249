"""Models of diffusers, read and written."""
