"""Trainings as data: run folders, what a run needs, and the way from its settings to a model."""
