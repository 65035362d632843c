"""Training recipes: what a configuration file may say about training. Needs no PyTorch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from gensynth.ir import UsageError, nearest

__all__ = ["Augmentation", "Recipe"]


@dataclass(frozen=True)
class Augmentation:
    """One random change of training images: a name and its parameters (those not given have the defaults).

    | name | parameters | what it does |
    | --- | --- | --- |
    | shift | pixels=1, fill="zero" or "edge" | moves by up to `pixels` along both axes |
    | crop | padding=4 | pads with zeros, then cuts out a random window of the old size |
    | flip | probability=0.5 | mirrors left and right |
    | affine | degrees=10, scale=0.1, shear=0.1, translate=0.1 | rotates, scales, shears, moves (share of the size) |
    | zoom | least=0.75, most=1.5 | scales by a factor between, then cuts out or pads to the old size, at random |
    | noise | deviation=0.05 | adds normal noise |
    | color | brightness=0.2, contrast=0.2 | adds up to +-brightness to each channel, scales by up to 1 +- contrast |
    | mixup | alpha=0.2 | blends pairs of images and their losses (arXiv 1710.09412) |

    Masks and boxes move as their images do. `mixup` is for whole images with a class.
    """

    name: str
    parameters: tuple[tuple[str, float | str], ...] = ()

    DEFAULTS: ClassVar[Mapping[str, Mapping[str, float | str]]] = {
        "shift": {"pixels": 1, "fill": "zero"},
        "crop": {"padding": 4},
        "flip": {"probability": 0.5},
        "affine": {"degrees": 10.0, "scale": 0.1, "shear": 0.1, "translate": 0.1},
        "zoom": {"least": 0.75, "most": 1.5},
        "noise": {"deviation": 0.05},
        "color": {"brightness": 0.2, "contrast": 0.2},
        "mixup": {"alpha": 0.2},
    }

    def __post_init__(self) -> None:
        defaults = self.DEFAULTS.get(self.name)
        if defaults is None:
            raise UsageError(
                f"unknown augmentation '{self.name}'", hint=nearest(self.name, self.DEFAULTS, what="augmentations")
            )
        for key, value in self.parameters:
            if key not in defaults:
                raise UsageError(
                    f"augmentation '{self.name}' has no parameter '{key}'",
                    hint=nearest(key, defaults, what=f"parameters of {self.name}"),
                )
            if key == "fill":
                if value not in ("zero", "edge"):
                    raise UsageError(f"augmentation '{self.name}': fill is {value!r}", hint='write "zero" or "edge"')
            elif isinstance(value, (bool, str)) or not math.isfinite(value) or value < 0:
                raise UsageError(f"augmentation '{self.name}': {key} is {value!r}", hint="it is a number of at least 0")
            elif key in ("pixels", "padding") and value != int(value):
                raise UsageError(f"augmentation '{self.name}': {key} is {value!r}", hint="it is a whole number")
            elif key in ("probability", "scale") and value >= (1 if key == "scale" else 1.000001):
                raise UsageError(f"augmentation '{self.name}': {key} is {value!r}", hint="it is less than 1")
        if self.name == "zoom" and not 0.01 <= self.number("least") <= self.number("most") <= 100:
            raise UsageError(
                f"augmentation 'zoom': least is {self.number('least'):g} and most is {self.number('most'):g}",
                hint="they are factors from 0.01 to 100; least is no more than most, and 1 keeps the size",
            )

    def number(self, parameter: str) -> float:
        """Returns a numeric parameter."""
        return float(self._value(parameter))

    def word(self, parameter: str) -> str:
        """Returns a parameter that is a word."""
        return str(self._value(parameter))

    def _value(self, parameter: str) -> float | str:
        return dict(self.parameters).get(parameter, self.DEFAULTS[self.name][parameter])

    @classmethod
    def from_value(cls, value: object, *, where: str) -> Augmentation:
        """Reads an augmentation: `"flip"`, or `{name = "shift", pixels = 2}`.

        Raises:
            UsageError: it is neither, or says something unknown.
        """
        if isinstance(value, Augmentation):
            return value
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
            raise UsageError(
                f"{where}: {value!r} is no augmentation", hint='write "flip" or {name = "shift", pixels = 2}'
            )
        parameters = []
        for key, item in value.items():
            if key != "name":
                if not isinstance(item, (int, float, str)):
                    raise UsageError(f"{where}: {key} is {item!r}", hint="it is a number or a word")
                parameters.append((str(key), item))
        try:
            return cls(value["name"], tuple(parameters))
        except UsageError as error:
            raise UsageError(f"{where}: {error.message}", hint=error.hint) from None


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    The learning rate rises linearly to `learning_rate` over the first `warmup` share of all steps and falls to 0 along
    a cosine (one cycle, arXiv 1708.07120). `weight_decay` holds for weights of convolutions and dense layers only.
    `ema_decay` (0: off) keeps an exponential moving average of weights and running statistics, the decay at step t
    being min(ema_decay, (1 + t) / (10 + t)). `early_stop` (0: off) ends training after so many epochs without a better
    validation accuracy. `gradient_clip` (0: off) bounds the norm of the whole gradient. `precision` "auto" is bfloat16
    where the device has instructions for it, and float32 elsewhere: a CPU without them is many times slower in
    bfloat16. `distillation` is the share of the loss that is the distance to what a teacher gives (arXiv 1503.02531),
    where there is a teacher, and `teacher_precision` what that one computes in. With `teacher_images` "plain" it sees
    every image once, as it is, not as augmentation changed it, and what it gives is kept. `examples` (0: all) trains on
    so many of the training examples, the first of a shuffle fixed by the seed. `layout` is how images lie in memory;
    `nhwc` (PyTorch's channels last) makes depthwise convolutions up to twice as fast on CPUs.

    Raises:
        UsageError: a value outside its range.
    """

    epochs: int = 30
    batch_size: int = 64
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup: float = 0.25
    label_smoothing: float = 0.0
    augmentation: tuple[Augmentation, ...] = ()
    ema_decay: float = 0.0
    early_stop: int = 0
    gradient_clip: float = 0.0
    precision: str = "float32"
    distillation: float = 0.0
    teacher_precision: str = "same"
    teacher_images: str = "same"
    examples: int = 0
    layout: str = "nchw"

    _RANGES: ClassVar[Mapping[str, tuple[float, float, str]]] = {
        "epochs": (1, math.inf, "at least 1"),
        "batch_size": (2, math.inf, "at least 2"),
        "learning_rate": (1e-12, math.inf, "positive"),
        "momentum": (0, 0.99999, "from 0 to less than 1"),
        "weight_decay": (0, math.inf, "at least 0"),
        "warmup": (0, 1, "from 0 to 1"),
        "label_smoothing": (0, 0.99999, "from 0 to less than 1"),
        "ema_decay": (0, 0.9999999, "from 0 to less than 1"),
        "early_stop": (0, math.inf, "at least 0"),
        "gradient_clip": (0, math.inf, "at least 0"),
        "distillation": (0, 1, "from 0 to 1"),
        "examples": (0, math.inf, "at least 0"),
    }
    _WORDS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "optimizer": ("sgd", "adamw"),
        "precision": ("float32", "bfloat16", "auto"),
        "teacher_precision": ("same", "float32", "bfloat16", "auto"),
        "teacher_images": ("same", "plain"),
        "layout": ("nchw", "nhwc"),
    }

    def __post_init__(self) -> None:
        for name, (least, most, text) in self._RANGES.items():
            value = getattr(self, name)
            if not least <= value <= most or not math.isfinite(value):
                raise UsageError(f"training recipe: {name} is {value}", hint=f"it is {text}")
        for name, words in self._WORDS.items():
            value = getattr(self, name)
            if value not in words:
                raise UsageError(f"training recipe: {name} is '{value}'", hint=nearest(str(value), words, what=name))

    def check_shared(self, where: str = "the recipe") -> None:
        """Raises UsageError if `where` asks for what a training of all networks together does not do."""
        mixes = any(item.name == "mixup" for item in self.augmentation)
        for asked, what in ((mixes, "mixup"), (self.early_stop, "early_stop")):
            if asked:
                raise UsageError(
                    f"{where}: networks are not trained together with {what}",
                    hint="leave it out of the recipe of shared training",
                )

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, object], *, where: str = "training") -> Recipe:
        """Reads a recipe from a table of a configuration file; `where` names the table in messages.

        Raises:
            UsageError: an unknown key, a value of the wrong type or outside its range.
        """
        kinds = {field.name: type(field.default) for field in dataclasses.fields(cls)}
        values: dict[str, object] = {}
        for key, value in mapping.items():
            kind = kinds.get(key)
            if kind is None:
                raise UsageError(f"{where}: unknown key '{key}'", hint=nearest(key, kinds, what="keys"))
            if kind is tuple:
                if not isinstance(value, (list, tuple)):
                    raise UsageError(f"{where}: {key} is {value!r}", hint='it is a list, such as ["flip"]')
                values[key] = tuple(
                    Augmentation.from_value(item, where=f"{where}: {key}[{index}]") for index, item in enumerate(value)
                )
                continue
            accepted = (int, float) if kind is float else (kind,)
            if isinstance(value, bool) or not isinstance(value, accepted):
                wanted = {int: "a whole number", float: "a number", str: "a word in quotes"}[kind]
                raise UsageError(f"{where}: {key} is {value!r}", hint=f"it is {wanted}")
            values[key] = float(value) if kind is float else value  # type: ignore[arg-type]
        try:
            return cls(**values)  # type: ignore[arg-type]
        except UsageError as error:
            raise UsageError(error.message.replace("training recipe", where, 1), hint=error.hint) from None
