"""Named trainings with their hyper-parameters: one module per data set."""

from fewstep.recipes import cifar10, digits, imagenet64, images, lsun256
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
    "imagenet64",
    "images",
    "lsun256",
]
