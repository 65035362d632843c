"""Drawings of networks and generators: Graphviz text, SVG, and a page to look around in."""

from .draw import draw

__all__ = ["draw"]
