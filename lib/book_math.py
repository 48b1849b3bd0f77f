"""Formulas in markdown → pictures, so that a page of the report reads well without a network."""

from __future__ import annotations

import base64
import io
import re
from functools import lru_cache

CODE = r"(?:^|\n)(?:```|~~~).*?\n(?:```|~~~)|`+[^`\n]*`+"
FORMULA = r"\$\$(?P<block>.+?)\$\$|(?<![\\$\w])\$(?P<inline>[^\s$](?:[^$\n]*[^\s$])?)\$(?![\d\w])"


def formulas_to_svg(markdown: str) -> str:
    """Replace `$…$` and `$$…$$` outside code by SVG pictures; what cannot be set stays as it was written."""
    return re.sub(f"(?P<code>{CODE})|{FORMULA}", _replace, markdown, flags=re.DOTALL)


def _replace(match: re.Match) -> str:
    source = match["block"] or match["inline"]
    if match["code"] is not None or not source:
        return match[0]
    try:
        picture, depth = _draw(" ".join(source.split()))
    except ValueError:  # matplotlib knows a part of TeX only; the reader then sees the TeX
        return match[0]
    alt = re.sub(r"[^\w\s+\-=.,()/^]", "", source).strip()
    image = f'<img alt="{alt}" style="vertical-align:{-depth:.1f}pt;display:inline" src="{picture}">'
    return f'\n\n<p style="text-align:center">{image}</p>\n\n' if match["block"] else image


@lru_cache
def _draw(source: str) -> tuple[str, float]:
    """Data URI of the formula and how far it reaches below the line, in points."""
    from matplotlib import mathtext  # most notebooks of a sweep have no formula and need not wait for it
    from matplotlib.font_manager import FontProperties

    font = FontProperties(size=12.5, math_fontfamily="cm")
    file = io.BytesIO()
    depth = mathtext.math_to_image(f"${source}$", file, prop=font, dpi=72, format="svg")
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode(), float(depth)
