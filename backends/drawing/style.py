"""The colours of a drawing, for light and dark surroundings."""

from __future__ import annotations

__all__ = ["HEAT", "STYLE"]

HEAT = ("#ffffff", "#fff8ef", "#ffefdc", "#ffe4c4", "#fdd9ae", "#fbcd98", "#f8c083", "#f5b36f", "#f1a65c")
"""Fill colours from no cost to the dearest box."""

HEAT_DARK = ("#232830", "#2d2a2a", "#382e28", "#453428", "#543b28", "#654328", "#784c28", "#8c5628", "#a06029")

FAMILIES = {
    "convolution": ("#4a7ab5", "#6f9fd8"),
    "depthwise": ("#3f9a94", "#5fbdb6"),
    "dense": ("#7d63b0", "#a58bd8"),
    "pool": ("#5d9655", "#83bd7a"),
    "merge": ("#8a8f98", "#9aa1ab"),
    "other": ("#b0b5bd", "#6c737e"),
    "terminal": ("#5b6470", "#aab2bd"),
}


def _variables(heat: tuple[str, ...], dark: bool) -> str:
    named = {f"heat{level}": colour for level, colour in enumerate(heat)}
    named |= {name: colours[dark] for name, colours in FAMILIES.items()}
    if dark:
        named |= {"paper": "#171a1f", "ink": "#e3e7ec", "soft": "#98a1ad", "line": "#727c89", "edge": "#434b56"}
        named |= {"frame": "#ffffff09", "rim": "#3a414b", "open": "#a08ad6", "bar": "#8f7bc4"}
    else:
        named |= {"paper": "#ffffff", "ink": "#1f2630", "soft": "#66707d", "line": "#8b95a2", "edge": "#c4cad2"}
        named |= {"frame": "#5c6f8a0d", "rim": "#d5dae1", "open": "#8a6fc7", "bar": "#a992dc"}
    return " ".join(f"--{name}: {colour};" for name, colour in named.items())


STYLE = (
    f"""
.gensynth {{ {_variables(HEAT, dark=False)} }}
@media (prefers-color-scheme: dark) {{ .gensynth {{ {_variables(HEAT_DARK, dark=True)} }} }}
.gensynth text {{ font: 10px ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace;
  fill: var(--ink); }}
.gensynth .paper {{ fill: var(--paper); }}
.gensynth .op {{ font: 600 12px system-ui, 'Segoe UI', Helvetica, Arial, sans-serif; }}
.gensynth .title {{ font: 600 17px system-ui, 'Segoe UI', Helvetica, Arial, sans-serif; }}
.gensynth .scope {{ font: 600 11px system-ui, 'Segoe UI', Helvetica, Arial, sans-serif; fill: var(--soft);
  paint-order: stroke; stroke: var(--paper); stroke-width: 3px; stroke-linejoin: round; }}
.gensynth .soft {{ fill: var(--soft); }}
.gensynth .note {{ fill-opacity: 0.68; }}
.gensynth .end {{ text-anchor: end; }}
.gensynth .middle {{ text-anchor: middle; }}
.gensynth .frame {{ fill: var(--frame); stroke: var(--rim); }}
.gensynth .choose {{ fill: none; stroke: var(--open); stroke-dasharray: 5 3; stroke-width: 1.3; }}
.gensynth .alternative {{ fill: var(--frame); stroke: var(--rim); }}
.gensynth .box {{ stroke: var(--edge); }}
.gensynth .wire {{ fill: none; stroke: var(--line); stroke-width: 1.3; }}
.gensynth .long {{ stroke-width: 1.7; }}
.gensynth .bar {{ fill: var(--bar); }}
.gensynth .rail {{ fill: var(--rim); }}
.gensynth .choice {{ fill: var(--open); }}
.gensynth .arrow {{ fill: var(--line); }}
"""
    + "".join(f".gensynth .{name} {{ fill: var(--{name}); }}\n" for name in FAMILIES)
    + "".join(f".gensynth .heat{level} {{ fill: var(--heat{level}); }}\n" for level in range(len(HEAT)))
)
