"""Named trainings with their hyper-parameters: one module per data set."""

from fewstep.recipes import cifar10, digits, images
from fewstep.recipes.run import RECIPES, Component, Data, Recipe, Run, component

__all__ = [
    "RECIPES",
    "Component",
    "Data",
    "Recipe",
    "Run",
    "cifar10",
    "component",
    "digits",
    "images",
]
