"""Objectives: what networks are trained for and judged by. Loads torch when one is first used."""

from .base import Meter, Objective, Outputs
from .classification import Classification
from .detection import Detection
from .segmentation import Segmentation

__all__ = ["Classification", "Detection", "Meter", "Objective", "Outputs", "Segmentation"]
