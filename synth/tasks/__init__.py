"""Tasks: the labelled images that networks are trained, judged and tested on, and what they are trained for."""

from .base import SPLITS, Task, parse_task_options, register_task, task, task_from_mapping, tasks
from .cifar import Cifar10, Cifar100
from .detection import DetectionTask
from .digits import Digits
from .image_folder import ImageFolder
from .photographs import Photographs
from .segmentation import SegmentationTask

__all__ = [
    "SPLITS",
    "Cifar10",
    "Cifar100",
    "DetectionTask",
    "Digits",
    "ImageFolder",
    "Photographs",
    "SegmentationTask",
    "Task",
    "parse_task_options",
    "register_task",
    "task",
    "task_from_mapping",
    "tasks",
]
