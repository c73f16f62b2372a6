"""The stylesheet's colours are readable."""

import re

import pytest

from tests.support import ROOT

STYLE = (ROOT / "devtools/console/style.css").read_text()
COLOURS = re.findall(r"--([\w-]+): light-dark\(#(\w{6}), #(\w{6})\);", STYLE)
LIGHT = {name: light for name, light, _dark in COLOURS}
DARK = {name: dark for name, _light, dark in COLOURS}
# Text on its background.
PAIRS = [
    *((text, on) for text in ("text", "muted", "accent") for on in ("bg", "surface", "raised")),
    *((tone, f"{tone}-bg") for tone in ("ok", "wait", "bad")),
    ("bad", "surface"),
]


def luminance(colour: str) -> float:
    """Defined in https://www.w3.org/TR/WCAG22/#dfn-relative-luminance."""
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4))
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize(("text", "on"), PAIRS)
def test_text_has_a_contrast_of_four_and_a_half(
    colours: dict[str, str], text: str, on: str
) -> None:
    """Light and dark texts meet WCAG 2.2, 1.4.3 (AA)."""
    darker, lighter = sorted((luminance(colours[text]), luminance(colours[on])))
    assert (lighter + 0.05) / (darker + 0.05) >= 4.5
