"""Scores of generated images: Fréchet distance, inception score, precision and recall.

Everything here sees images as uint8 tensors [N, C, H, W] and knows nothing of models or training.
"""

from fewstep.evaluation.baselines import class_gaussian
from fewstep.evaluation.classifier import SmallClassifier, train_classifier
from fewstep.evaluation.copies import Memorisation, memorisation
from fewstep.evaluation.evaluator import Evaluator
from fewstep.evaluation.features import FeatureNetwork, Features, extract
from fewstep.evaluation.frechet import Moments, frechet_distance
from fewstep.evaluation.inception_score import inception_score
from fewstep.evaluation.manifold import precision_recall
from fewstep.evaluation.reference import Reference
from fewstep.evaluation.resnet56 import ResNet56
from fewstep.evaluation.scores import Scores

__all__ = [
    "Evaluator",
    "FeatureNetwork",
    "Features",
    "Memorisation",
    "Moments",
    "Reference",
    "ResNet56",
    "Scores",
    "SmallClassifier",
    "class_gaussian",
    "extract",
    "frechet_distance",
    "inception_score",
    "memorisation",
    "precision_recall",
    "train_classifier",
]
