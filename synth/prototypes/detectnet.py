"""DetectNet, that is GoogLeNet that finds objects."""

from __future__ import annotations

from gensynth.ir import Builder, Graph
from gensynth.ir.ops import Conv2d, Dropout, Sigmoid

from .googlenet import POOLED, Trunk
from .layers import require
from .registry import Image, register_prototype

CORNERS = 4
"""x and y of the top left corner, then of the bottom right one."""


@register_prototype("detectnet")
def detectnet(
    *, batch_norm: bool = False, width: float = 1.0, classes: int = 1, image: Image = (3, 384, 1248)
) -> Graph:
    """DetectNet: GoogLeNet without its last pools, which tells for each 16 x 16 cell of an image what object covers it.

    `examples/kitti/detectnet_network.prototxt` of NVIDIA's Caffe, as it is deployed: GoogLeNet (arXiv 1409.4842) up to
    inception 5b without the pool after 4e, dropout, and two 1 x 1 convolutions. The first output, `head.coverage`, is
    behind a sigmoid and has a channel for each class. The second, `head.bboxes`, has four for all classes together: x1,
    y1, x2, y2 of the box around the cell's object in pixels; DetectNet counts them from the cell's top left corner. An
    image whose sides are not multiples of 16 has a rim without cells. `batch_norm` and `width` are those of
    `googlenet`.

    At 384 x 1248 with one class 5,978,677 parameters: GoogLeNet's 6,998,552 less its dense layer of 1,025,000, and
    5,125 for both heads.
    """
    require(classes >= 1, f"classes must be at least 1, got {classes}", "give the number of classes of the task")
    builder = Builder("detectnet_bn" if batch_norm else "detectnet")
    value = Trunk(builder, width, batch_norm).build(builder.input("image", image), pooled=POOLED[:1])
    with builder.scope("head"):
        value = builder.emit(Dropout(rate=0.4), value, name="dropout")
        coverage = builder.emit(Conv2d(channels=classes, kernel=1, bias=True), value, name="coverage_logits")
        coverage = builder.emit(Sigmoid(), coverage, name="coverage")
        bboxes = builder.emit(Conv2d(channels=CORNERS, kernel=1, bias=True), value, name="bboxes")
        builder.output(coverage, bboxes)
    return builder.build()
