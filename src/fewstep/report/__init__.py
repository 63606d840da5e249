"""The reproduction: train every method, sample and score all of them, write one page."""
