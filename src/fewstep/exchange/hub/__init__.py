"""Models of the Hugging Face hub: fetched and pushed."""
