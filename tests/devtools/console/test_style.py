"""The stylesheet's colours are readable."""

from __future__ import annotations

import re

import pytest

from tests.support import ROOT

STYLE = (ROOT / "devtools/console/style.css").read_text()
# Text on its background.
PAIRS = [
    *((text, on) for text in ("text", "muted", "accent") for on in ("bg", "surface", "raised")),
    *((tone, f"{tone}-bg") for tone in ("ok", "wait", "bad")),
    ("muted", "off-bg"),
    ("bad", "surface"),
]


def colours(selector: str) -> dict[str, str]:
    block = re.search(
        rf"^{re.escape(selector)} {{(.*?--mono|.*?^}})", STYLE, re.DOTALL | re.MULTILINE
    )
    assert block
    return {
        name: value if len(value) == 6 else "".join(c * 2 for c in value)
        for name, value in re.findall(r"--([\w-]+): #([0-9a-f]{3,6});", block[1])
    }


def luminance(colour: str) -> float:
    """Defined in https://www.w3.org/TR/WCAG22/#dfn-relative-luminance."""
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4))
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("selector", [":root", "body.body--dark"])
def test_text_has_a_contrast_of_four_and_a_half(selector: str) -> None:
    """Light and dark texts meet WCAG 2.2, 1.4.3 (AA)."""
    known = colours(":root") | colours(selector)
    poor = {}
    for text, on in PAIRS:
        darker, lighter = sorted((luminance(known[text]), luminance(known[on])))
        if (ratio := (lighter + 0.05) / (darker + 0.05)) < 4.5:
            poor[text, on] = round(ratio, 2)
    assert poor == {}
