"""Named trainings with their hyper-parameters: a module per data set, the digits' in two."""

from fewstep.recipes import cifar10, digits, digits_processes, imagenet64, images, lsun256
from fewstep.runs.recipe import RECIPES, Recipe
from fewstep.runs.run import Component, Data, Run, component

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
