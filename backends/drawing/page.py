"""The drawing as a page of its own: totals, and a picture to drag and zoom."""

from __future__ import annotations

from collections.abc import Sequence

from .svg import escape

__all__ = ["to_html"]

_STYLE = """
:root { color-scheme: light dark; --ground: #f6f7f9; --ink: #1f2630; --soft: #66707d; --rule: #dfe3e8;
  --card: #ffffff; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #101317; --ink: #e3e7ec; --soft: #98a1ad; --rule: #2c323a; --card: #171a1f; }
}
* { box-sizing: border-box; }
body { margin: 0; height: 100vh; display: flex; flex-direction: column; background: var(--ground); color: var(--ink);
  font: 14px/1.45 system-ui, 'Segoe UI', Helvetica, Arial, sans-serif; }
header { display: flex; flex-wrap: wrap; gap: 10px 36px; align-items: end; padding: 14px 22px; background: var(--card);
  border-bottom: 1px solid var(--rule); }
h1 { font-size: 19px; margin: 0; }
dl { display: flex; flex-wrap: wrap; gap: 4px 26px; margin: 0; }
dt { color: var(--soft); font-size: 12px; }
dd { margin: 0; font-family: ui-monospace, Menlo, Consolas, monospace; }
button { font: inherit; color: inherit; background: none; border: 1px solid var(--rule); border-radius: 6px;
  min-width: 32px; padding: 2px 9px; cursor: pointer; }
nav { margin-left: auto; display: flex; gap: 6px; }
main { flex: 1; overflow: hidden; cursor: grab; touch-action: none; }
main:active { cursor: grabbing; }
main svg { display: block; transform-origin: 0 0; }
main .gensynth .paper { fill: none; }
"""

_SCRIPT = """
const main = document.querySelector('main'), svg = main.querySelector('svg');
const width = svg.width.baseVal.value, height = svg.height.baseVal.value;
let scale = 1, x = 0, y = 0;
const show = () => { svg.style.transform = `translate(${x}px, ${y}px) scale(${scale})`; };
const zoom = (factor, cx, cy) => {
  const next = Math.min(6, Math.max(0.05, scale * factor));
  x = cx - (cx - x) * next / scale; y = cy - (cy - y) * next / scale; scale = next; show();
};
const fit = (least) => {
  scale = Math.max(least, Math.min(1, main.clientWidth / width, main.clientHeight / height));
  x = Math.max(0, (main.clientWidth - width * scale) / 2); y = 0; show();
};
main.addEventListener('wheel', (event) => {
  event.preventDefault();
  const frame = main.getBoundingClientRect();
  zoom(Math.exp(-event.deltaY * 0.0015), event.clientX - frame.left, event.clientY - frame.top);
}, { passive: false });
main.addEventListener('pointermove', (event) => {
  if (event.buttons & 1) { x += event.movementX; y += event.movementY; show(); }
});
const centre = (factor) => zoom(factor, main.clientWidth / 2, main.clientHeight / 2);
document.getElementById('in').onclick = () => centre(1.3);
document.getElementById('out').onclick = () => centre(1 / 1.3);
document.getElementById('fit').onclick = () => fit(0);
fit(0.5);
"""


def to_html(svg: str, title: str, totals: Sequence[tuple[str, str]]) -> str:
    """Returns a self-contained page around an SVG; needs no network and no other file."""
    rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in totals)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
<dl>{rows}</dl>
<nav><button id="out" title="smaller">&minus;</button><button id="in" title="larger">+</button>
<button id="fit" title="show everything">fit</button></nav>
</header>
<main>
{svg}</main>
<script>{_SCRIPT}</script>
</body>
</html>
"""
