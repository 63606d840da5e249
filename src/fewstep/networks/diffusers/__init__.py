"""Networks of the library diffusers (`pip install 'fewstep[diffusers]'`)."""
