"""Which tensor of another project's network is which of ours; the published files."""
