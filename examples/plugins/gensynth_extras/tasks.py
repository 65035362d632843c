"""A task: a class whose fields are its options, and which says images, classes and examples."""

from __future__ import annotations

import numpy as np

from gensynth.backends.examples import Examples
from gensynth.ir import UsageError
from gensynth.passes import option
from gensynth.synth.tasks import Task, register_task

_SIZES = {"train": 600, "validation": 200, "test": 200}


@register_task("stripes")
class Stripes(Task):
    """Noisy stripes, drawn as they are needed: lying or standing."""

    noise: float = option(default=0.5, help="deviation of the noise; stripes are of height 1")

    def __post_init__(self) -> None:
        if self.noise < 0:
            raise UsageError(f"task '{self.name}': noise is {self.noise}", hint="it is at least 0")

    @property
    def image(self) -> tuple[int, int, int]:
        return (1, 8, 8)

    @property
    def class_names(self) -> tuple[str, ...]:
        return ("lying", "standing")

    def load(self, name: str) -> Examples:
        random = np.random.Generator(np.random.Philox(list(_SIZES).index(name)))
        count = _SIZES[name]
        labels = np.arange(count, dtype=np.int64) % 2
        phases = random.integers(0, 4, count)
        waves = np.sign(np.sin((np.arange(8)[None, :] + phases[:, None] + 0.5) * np.pi / 2))
        lying = np.repeat(waves[:, :, None], 8, axis=2)
        images = np.where(labels[:, None, None] == 0, lying, lying.swapaxes(1, 2))
        images = images + self.noise * random.standard_normal(images.shape)
        return Examples(images[:, None].astype(np.float32), labels)
