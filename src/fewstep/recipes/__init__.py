"""Named trainings with their hyper-parameters: a module per data set, the digits' in two."""

from fewstep.recipes import cifar10, digits, digits_processes, imagenet64, images, lsun256
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
    "digits_processes",
    "imagenet64",
    "images",
    "lsun256",
]
