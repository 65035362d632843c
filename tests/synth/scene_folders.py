"""Toy scenes in the published layouts: CamVid's for segmentation, COCO's for detection."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from toy_scenes import scenes


def save_image(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    """Writes an image [3, H, W], or a mask [H, W]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(path)


def write_camvid(root: Path, counts: dict[str, int], side: int = 32, unlabelled: int = 11) -> None:
    """Writes parts of `counts` images; the rightmost column of each mask is `unlabelled`."""
    for seed, (part, count) in enumerate(counts.items()):
        images, masks, _ = scenes(count, side, seed)
        masks[:, :, -1] = unlabelled
        for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
            save_image(root / part / f"{number:03}.png", image)
            save_image(root / f"{part}annot" / f"{number:03}.png", mask)


def write_coco(root: Path, counts: dict[str, int], side: int = 64, year: str = "") -> None:
    """Writes parts of `counts` images with boxes of the categories `red` (id 3) and `blue` (id 7)."""
    for seed, (part, count) in enumerate(counts.items()):
        images, _, boxes = scenes(count, side, seed)
        listed, annotations = [], []
        for number, (image, rows) in enumerate(zip(images, boxes, strict=True)):
            save_image(root / f"{part}{year}" / f"{number:03}.png", image)
            listed.append({"id": 10 + number, "file_name": f"{number:03}.png", "height": side, "width": side})
            for x1, y1, x2, y2, kind in rows[rows[:, 4] >= 0].tolist():
                annotations.append(
                    {
                        "id": len(annotations),
                        "image_id": 10 + number,
                        "category_id": 3 if kind == 0 else 7,
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "iscrowd": 0,
                    }
                )
        categories = [{"id": 7, "name": "blue"}, {"id": 3, "name": "red"}]
        content = {"images": listed, "annotations": annotations, "categories": categories}
        path = root / "annotations" / f"instances_{part}{year}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
