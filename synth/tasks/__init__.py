"""Tasks: the labelled images that networks are trained, judged and tested on."""

from .base import SPLITS, Task, parse_task_options, register_task, task, task_from_mapping, tasks
from .cifar import Cifar10, Cifar100
from .digits import Digits
from .image_folder import ImageFolder
from .photographs import Photographs

__all__ = [
    "SPLITS",
    "Cifar10",
    "Cifar100",
    "Digits",
    "ImageFolder",
    "Photographs",
    "Task",
    "parse_task_options",
    "register_task",
    "task",
    "task_from_mapping",
    "tasks",
]
