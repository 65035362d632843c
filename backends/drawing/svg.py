"""The drawing as SVG."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from xml.sax.saxutils import escape as escape_markup

from .labels import Bars, short_number
from .layout import BAR_ROW, BOX_PADDING, ROW, SANS, text_width
from .scene import HEAT_LEVELS, Box, Cluster, Item, Point, Route
from .style import STYLE

__all__ = ["escape", "to_svg"]

MARGIN = 26.0
HEADER = 58.0
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def escape(text: str) -> str:
    """Returns text fit for XML, in elements and in quoted attributes."""
    return escape_markup(_FORBIDDEN.sub("\ufffd", text), {'"': "&quot;", "'": "&#39;"})


def _number(value: float) -> str:
    text = f"{value:.1f}"
    return text.removesuffix(".0")


def _text(x: float, y: float, content: str, kind: str = "") -> str:
    kind = f' class="{kind}"' if kind else ""
    return f'<text{kind} x="{_number(x)}" y="{_number(y)}">{escape(content)}</text>'


def _rectangle(x: float, y: float, width: float, height: float, kind: str, radius: float = 0.0) -> str:
    rounded = f' rx="{_number(radius)}"' if radius else ""
    return (
        f'<rect class="{kind}" x="{_number(x)}" y="{_number(y)}" width="{_number(width)}"'
        f' height="{_number(height)}"{rounded}/>'
    )


def _bars(bars: Bars, box: Box, top: float) -> list[str]:
    """Returns one open attribute: its name, and over each value a bar as high as it is likely."""
    left = box.x + BOX_PADDING + 4
    parts = [_text(left, top + BAR_ROW - 7, bars.attribute, "choice")]
    x = left + 64
    for value, probability in bars.values:
        width = max(26.0, 10 + text_width(value))
        full = BAR_ROW - 20
        height = max(1.0, full * probability)
        parts.append("<g>" + f"<title>{escape(f'{bars.choice}: {value}, probability {probability:.1%}')}</title>")
        parts.append(_rectangle(x + 2, top + 3, width - 8, full, "rail", 2))
        parts.append(_rectangle(x + 2, top + 3 + full - height, width - 8, height, "bar", 2))
        parts.append(_text(x + width / 2 - 2, top + BAR_ROW - 7, value, "middle") + "</g>")
        x += width
    return parts


def _box(box: Box) -> list[str]:
    parts = [f'<g id="{escape(box.key)}"><title>{escape(box.tooltip)}</title>']
    radius = box.height / 2 if box.family == "terminal" else 5.0
    parts.append(_rectangle(box.x, box.y, box.width, box.height, f"box heat{box.heat}", radius))
    if box.family != "terminal":
        parts.append(_rectangle(box.x + 2, box.y + 4, 3, box.height - 8, box.family, 1.5))
    left, right = box.x + BOX_PADDING + 4, box.x + box.width - BOX_PADDING
    y = box.y + BOX_PADDING / 2 + 11
    parts.append(_text(left, y, box.title, "op"))
    if box.detail:
        parts.append(_text(left + text_width(box.title, SANS) + 6, y, box.detail))
    parts.append(_text(right, y, box.name, "note end"))
    if box.followers:
        y += ROW
        parts.append(_text(left, y, box.followers, "note"))
    if box.shape or box.amount:
        y += ROW
        if box.shape:
            parts.append(_text(left, y, box.shape))
        if box.amount:
            parts.append(_text(right, y, box.amount, "note end"))
    top = y + 4
    for bars in box.bars:
        parts += _bars(bars, box, top)
        top += BAR_ROW
    parts.append("</g>")
    return parts


def _curve(points: Sequence[Point]) -> str:
    """Returns a path that leaves and enters every point upright."""
    parts = [f"M{_number(points[0][0])} {_number(points[0][1])}"]
    for (x0, y0), (x1, y1) in pairwise(points):
        if y0 == y1 and x0 == x1:
            continue
        if abs(x0 - x1) < 0.05:
            parts.append(f"V{_number(y1)}")
        else:
            middle = _number((y0 + y1) / 2)
            parts.append(f"C{_number(x0)} {middle} {_number(x1)} {middle} {_number(x1)} {_number(y1)}")
    return "".join(parts)


def _corners(points: Sequence[Point]) -> str:
    """Returns a path of straight lines with round corners."""
    parts = [f"M{_number(points[0][0])} {_number(points[0][1])}"]
    for before, (x, y), after in zip(points, points[1:], points[2:], strict=False):
        steps = []
        for other in (before, after):
            length = abs(other[0] - x) + abs(other[1] - y)
            radius = min(8.0, length / 2)
            steps.append((x + (other[0] - x) * radius / (length or 1), y + (other[1] - y) * radius / (length or 1)))
        (x0, y0), (x1, y1) = steps
        parts.append(f"L{_number(x0)} {_number(y0)}Q{_number(x)} {_number(y)} {_number(x1)} {_number(y1)}")
    parts.append(f"L{_number(points[-1][0])} {_number(points[-1][1])}")
    return "".join(parts)


def _route(route: Route, x: float, y: float, angular: bool) -> str:
    points = [(x + px, y + py) for px, py in route.points]
    kind = "wire long" if route.long else "wire"
    arrow = ""
    if route.arrow:
        tip_x, tip_y = points[-1]
        points[-1] = (tip_x, tip_y - 4)
        tip = f"M{_number(tip_x)} {_number(tip_y)}l-3.5 -6.5h7z"
        arrow = f'<path class="arrow" d="{tip}"/>'
    return f'<path class="{kind}" d="{_corners(points) if angular else _curve(points)}"/>{arrow}'


def _cluster(cluster: Cluster, x: float, y: float, total: float) -> list[str]:
    """Draws a cluster at a place on the page: frame, then wires, then what is inside."""
    parts = []
    framed = cluster.style in ("scope", "choose", "alternative")
    if framed:
        parts.append(f'<g id="{escape(cluster.key)}">')
        if cluster.tooltip:
            parts.append(f"<title>{escape(cluster.tooltip)}</title>")
        kind = {"scope": "frame"}.get(cluster.style, cluster.style)
        parts.append(_rectangle(x, y, cluster.width, cluster.height, kind, 9))
    angular = cluster.style == "root" and any(
        isinstance(child, Cluster) and child.style == "column" for child in cluster.children
    )
    parts += [_route(route, x, y, angular) for route in cluster.routes]
    if framed:
        parts.append(_text(x + 10, y + 16, cluster.title, "scope choice" if cluster.style == "choose" else "scope"))
        right = x + cluster.width - 10
        if cluster.probability is not None:
            parts.append(_text(right, y + 16, f"{cluster.probability:.0%}", "choice end"))
            parts.append(_rectangle(x + 10, y + 22, cluster.width - 20, 4, "rail", 2))
            parts.append(_rectangle(x + 10, y + 22, (cluster.width - 20) * cluster.probability, 4, "bar", 2))
        elif total and cluster.value >= 0.0005 * total and cluster.style == "scope":
            parts.append(_text(right, y + 16, f"{cluster.value / total:.1%}", "soft end"))
    for child in cluster.children:
        parts += _item(child, x, y, total)
    if framed:
        parts.append("</g>")
    return parts


def _item(item: Item, x: float, y: float, total: float) -> list[str]:
    if isinstance(item, Cluster):
        return _cluster(item, x + item.x, y + item.y, total)
    item.x, item.y = item.x + x, item.y + y
    return _box(item)


def _highest_text(root: Cluster) -> str:
    top = _highest(root)
    return f"{top / root.value:.1%} · {short_number(top)}"


def _legend(x: float, y: float, highest: str, what: str) -> list[str]:
    parts = [_text(x, y - 6, what, "soft")]
    for level in range(1, HEAT_LEVELS + 1):
        parts.append(_rectangle(x + (level - 1) * 18, y, 18, 9, f"box heat{level}"))
    parts.append(_text(x, y + 21, "0 %", "soft"))
    parts.append(_text(x + HEAT_LEVELS * 18 + 6, y + 9, highest, "soft"))
    return parts


def _highest(item: Item) -> float:
    return item.value if isinstance(item, Box) else max((_highest(child) for child in item.children), default=0.0)


def to_svg(root: Cluster, title: str, subtitle: str, heat_title: str) -> str:
    """Returns a laid-out scene as an SVG document; `heat_title` says what the heat shows, a title may be empty."""
    total = root.value
    legend = bool(total)
    header_height = HEADER if title or legend else 0.0
    text = max(text_width(title, 10), text_width(subtitle))
    highest = _highest_text(root) if legend else ""
    legend_width = max(text_width(heat_title), HEAT_LEVELS * 18 + 6 + text_width(highest)) if legend else 0.0
    width = max(root.width, text + legend_width + 60) + 2 * MARGIN
    height = root.height + 2 * MARGIN + header_height
    size = f'width="{_number(width)}" height="{_number(height)}" viewBox="0 0 {_number(width)} {_number(height)}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="gensynth" role="img" {size}>',
        f"<style>{STYLE}</style>",
        _rectangle(0, 0, width, height, "paper"),
    ]
    if title:
        parts.append(_text(MARGIN, MARGIN + 12, title, "title"))
        parts.append(_text(MARGIN, MARGIN + 30, subtitle, "soft"))
    if legend:
        parts += _legend(width - MARGIN - legend_width, MARGIN + 8, highest, heat_title)
    parts += _cluster(root, (width - root.width) / 2, MARGIN + header_height, total)
    parts.append("</svg>")
    return "\n".join(parts) + "\n"
