"""Cleaning: what drafts become one node of the IR, once it is known who reads what."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gensynth.ir import Array, Value, infer_types
from gensynth.ir.ops import (
    AvgPool,
    BatchNorm,
    Conv2d,
    ConvTranspose2d,
    Dense,
    Flatten,
    GlobalAvgPool,
    HardSigmoid,
    MaxPool,
    Pad,
    Relu,
    Relu6,
    Resize,
    Sigmoid,
    Softmax,
    Split,
)

from .importer_translation import Draft

__all__ = ["clean"]


def clean(drafts: Sequence[Draft], outputs: Sequence[Value], is_own: bool) -> tuple[list[Draft], list[Value]]:
    """Returns the drafts that the outputs depend on, with those joined that are one op of the IR, and the outputs.

    In models of GenSynth's own, only what the exporter took apart (a slash in the name) is put together again.
    """
    found = _Drafts(drafts, outputs, is_own)
    found.merge_slices()
    for draft in list(found.drafts):
        for rule in (_fold_affine, _fold_pad, _flat_mean, _whole_resize):
            rule(found, draft)
    return found.finish()


class _Drafts:
    """The drafts, who reads each value, and which value stands for another."""

    def __init__(self, drafts: Sequence[Draft], outputs: Sequence[Value], is_own: bool) -> None:
        self._is_own = is_own
        self.drafts = list(drafts)
        self.outputs = list(outputs)
        self._drop_unread()
        self.makers = {value.name: draft for draft in self.drafts for value in draft.results}

    def _drop_unread(self) -> None:
        wanted = {value.name for value in self.outputs}
        kept = []
        for draft in reversed(self.drafts):
            if any(value.name in wanted for value in draft.results):
                kept.append(draft)
                wanted.update(value.name for value in draft.operands)
        self.drafts = kept[::-1]

    def before(self, draft: Draft) -> Draft | None:
        """Returns what makes the operand of a draft, where nothing else reads it and the two may be joined."""
        name = draft.operands[0].name
        maker = self.makers.get(name)
        if maker is None or len(maker.results) != 1 or (self._is_own and "/" not in maker.node.label):
            return None
        readers = sum(value.name == name for other in self.drafts for value in other.operands)
        readers += sum(value.name == name for value in self.outputs)
        return maker if readers == 1 else None

    def substitute(self, old: Value, new: Value) -> None:
        """Has everybody read another value instead."""
        for draft in self.drafts:
            draft.operands = [new if value.name == old.name else value for value in draft.operands]
        self.outputs = [new if value.name == old.name else value for value in self.outputs]

    def remove(self, draft: Draft) -> None:
        self.drafts.remove(draft)

    def merge_slices(self) -> None:
        """Makes one split of slices of a value along an axis that touch but do not overlap."""
        groups: dict[tuple[str, int], list[Draft]] = {}
        for draft in self.drafts:
            if draft.cut is not None and isinstance(draft.op, Split):
                groups.setdefault((draft.operands[0].name, draft.op.axis), []).append(draft)
        for (_, axis), slices in groups.items():
            cuts = sorted({draft.cut for draft in slices if draft.cut is not None})
            if len(slices) < 2 or any(one[1] > other[0] for one, other in itertools.pairwise(cuts)):
                continue
            first = slices[0]
            length = first.operands[0].type.sizes()[axis]
            edges = sorted({0, length, *(edge for cut in cuts for edge in cut)})
            sizes = tuple(end - start for start, end in itertools.pairwise(edges))
            op = Split(sections=len(sizes), axis=axis) if len(set(sizes)) == 1 else Split(sizes=sizes, axis=axis)
            types = infer_types(op, (first.operands[0].type,))
            results = tuple(Value(f"{first.results[0].name}_part{index}", type) for index, type in enumerate(types))
            whole = replace(first, op=op, results=results, cut=None)
            self.drafts[self.drafts.index(first)] = whole
            for draft in slices:
                assert draft.cut is not None
                if draft is not first:
                    self.drafts.remove(draft)
                for index, value in enumerate(draft.results):
                    start = draft.cut[0] if index == (1 if draft.cut[0] else 0) else None
                    if start is not None:
                        self.substitute(value, results[edges.index(start)])
        self.makers = {value.name: draft for draft in self.drafts for value in draft.results}

    def finish(self) -> tuple[list[Draft], list[Value]]:
        self._drop_unread()
        return self.drafts, self.outputs


def _fold_affine(drafts: _Drafts, draft: Draft) -> None:
    """conv, then scale and shift per channel --> conv with another weight and bias."""
    if not draft.affine:
        return
    maker = drafts.before(draft)
    if maker is None or not isinstance(maker.op, (Conv2d, ConvTranspose2d, Dense, BatchNorm)):
        return
    scale = draft.weights["scale"].astype(np.float64)
    shift = draft.weights["bias"].astype(np.float64)
    weights = {name: array.astype(np.float64) for name, array in maker.weights.items()}
    if isinstance(maker.op, BatchNorm):
        changed = {"scale": weights["scale"] * scale, "bias": weights["bias"] * scale + shift}
    else:
        weight = weights["weight"]
        if isinstance(maker.op, ConvTranspose2d):
            groups = maker.op.groups
            rows = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
            weight = (rows * scale.reshape(groups, 1, -1, 1, 1)).reshape(weight.shape)
        else:
            weight = weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))
        changed = {"weight": weight}
        if "bias" in weights or shift.any():
            changed["bias"] = weights.get("bias", np.zeros(len(scale))) * scale + shift
            maker.op = maker.op.with_attributes({"bias": True})
    singles: dict[str, Array] = {name: array.astype(np.float32) for name, array in changed.items()}
    if not all(np.isfinite(array).all() for array in singles.values()):
        return
    maker.weights = {**maker.weights, **singles}
    drafts.substitute(draft.results[0], maker.results[0])
    drafts.remove(draft)


_NEVER_NEGATIVE = (Relu, Relu6, Sigmoid, HardSigmoid, Softmax)


def _fold_pad(drafts: _Drafts, draft: Draft) -> None:
    """pad, then conv or pool without padding --> conv or pool with padding, where that computes the same."""
    op = draft.op
    if not isinstance(op, (Conv2d, MaxPool, AvgPool)):
        return
    pad = drafts.before(draft)
    if pad is None or not isinstance(pad.op, Pad):
        return
    if isinstance(op, Conv2d):
        fits = pad.op.value == 0
    elif isinstance(op, AvgPool):
        fits = pad.op.value == 0 and not op.ceil
    else:
        maker = drafts.makers.get(pad.operands[0].name)
        below = pad.op.value <= float(np.finfo(np.float32).min)
        fits = below or (pad.op.value == 0 and maker is not None and isinstance(maker.op, _NEVER_NEGATIVE))
    own = op.pads(draft.operands[0].type)
    if not fits or (any(own) and not isinstance(op, Conv2d)):
        return
    sides = tuple(one + other for one, other in zip(own, pad.op.pads(), strict=True))
    if not isinstance(op, Conv2d):
        kernel = op.kernel if isinstance(op.kernel, tuple) else (op.kernel, op.kernel)
        if max(sides[:2]) >= kernel[0] or max(sides[2:]) >= kernel[1]:
            return
    changes: dict[str, tuple[int, ...] | bool] = {"padding": sides}
    if isinstance(op, AvgPool):
        changes["count_padding"] = True
    folded = op.with_attributes(changes)
    if infer_types(folded, (pad.operands[0].type,)) != (draft.results[0].type,):
        return
    draft.op = folded
    draft.operands = [pad.operands[0]]
    drafts.remove(pad)


def _flat_mean(drafts: _Drafts, draft: Draft) -> None:
    """global_avg_pool {keep=true}, then flatten --> global_avg_pool."""
    if not isinstance(draft.op, Flatten):
        return
    pool = drafts.before(draft)
    if pool is None or not isinstance(pool.op, GlobalAvgPool) or not pool.op.keep:
        return
    pool.op, pool.results = GlobalAvgPool(), draft.results
    drafts.makers[draft.results[0].name] = pool
    drafts.remove(draft)


def _whole_resize(drafts: _Drafts, draft: Draft) -> None:
    """The nearest rows, then the nearest columns --> a resize of both."""
    op = draft.op
    if not isinstance(op, Resize) or op.mode != "nearest" or op.size == 0:
        return
    rows = drafts.before(draft)
    if rows is None or not isinstance(rows.op, Resize) or rows.op.mode != "nearest" or rows.op.size == 0:
        return
    source, middle, result = (value.type.sizes()[2:] for value in (rows.operands[0], *rows.results, *draft.results))
    if all(old == mid or mid == new for old, mid, new in zip(source, middle, result, strict=True)):
        draft.op = Resize(size=(result[0], result[1]))
        draft.operands = list(rows.operands)
        drafts.remove(rows)
