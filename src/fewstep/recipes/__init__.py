"""Named trainings with their hyper-parameters: a module per data set, of two of them several."""

from fewstep.recipes import (
    cifar10,
    cifar10_consistency,
    cifar10_flow_maps,
    digits,
    digits_consistency,
    digits_flow_maps,
    digits_networks,
    digits_processes,
    fashion,
    imagenet64,
    images,
    lsun256,
    toy2d,
)
from fewstep.runs.recipe import RECIPES, Recipe
from fewstep.runs.run import Component, Data, Run, component

__all__ = [
    "RECIPES",
    "Component",
    "Data",
    "Recipe",
    "Run",
    "cifar10",
    "cifar10_consistency",
    "cifar10_flow_maps",
    "component",
    "digits",
    "digits_consistency",
    "digits_flow_maps",
    "digits_networks",
    "digits_processes",
    "fashion",
    "imagenet64",
    "images",
    "lsun256",
    "toy2d",
]
