"""PyTorch: modules from networks, training, probing, and networks from exported programs. Loads torch on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .calibration import calibrate
    from .importer import from_torch
    from .lowerings import lowering
    from .module import NetworkModule, Observer, Scope, to_torch, weights_of
    from .probing import probe
    from .recipe import Augmentation, Recipe
    from .responses import EdgeResponse, ParameterResponse, Responses, Scores, ValueResponse
    from .shared_training import SharedTraining, evaluate_shared, train_shared
    from .sharing import SharedModule, SharedNetwork, share_weights
    from .training import EpochReport, Evaluation, Training, TrainingError, evaluate, train

__all__ = [
    "Augmentation",
    "EdgeResponse",
    "EpochReport",
    "Evaluation",
    "NetworkModule",
    "Observer",
    "ParameterResponse",
    "Recipe",
    "Responses",
    "Scope",
    "Scores",
    "SharedModule",
    "SharedNetwork",
    "SharedTraining",
    "Training",
    "TrainingError",
    "ValueResponse",
    "calibrate",
    "evaluate",
    "evaluate_shared",
    "from_torch",
    "lowering",
    "probe",
    "share_weights",
    "to_torch",
    "train",
    "train_shared",
    "weights_of",
]

_MODULES = {
    "calibration": ("calibrate",),
    "importer": ("from_torch",),
    "lowerings": ("lowering",),
    "module": ("NetworkModule", "Observer", "Scope", "to_torch", "weights_of"),
    "probing": ("probe",),
    "recipe": ("Augmentation", "Recipe"),
    "responses": ("EdgeResponse", "ParameterResponse", "Responses", "Scores", "ValueResponse"),
    "shared_training": ("SharedTraining", "evaluate_shared", "train_shared"),
    "sharing": ("SharedModule", "SharedNetwork", "share_weights"),
    "training": ("EpochReport", "Evaluation", "Training", "TrainingError", "evaluate", "train"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{home}", __name__), name)
