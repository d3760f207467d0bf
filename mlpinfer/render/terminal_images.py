"""Small images in a terminal: two pixels a character, one above the other."""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rich.style import Style
from rich.text import Text

from mlpinfer.evaluation.mistakes import Image, Mistake, Mistakes, shrunk
from mlpinfer.render.text import Stdout

#: Wider images are shrunk.
_MOST_COLUMNS = 40
_GAP = 2
#: Without colours, a pixel of more than this is drawn: thin strokes are seldom white.
_INK = 63
_SHADES = " .:-=+*#%@"


def print_mistakes(mistakes: Mistakes, most: int) -> None:
    """Print up to `most` mistakes on stdout, as many side by side as there is room for."""
    console = Stdout(highlight=False)
    shown = mistakes.shown[:most]
    title = f"the {len(shown):,} most confident of {mistakes.total:,} mistakes" if shown else "no mistakes"
    console.print(f"\n{title}")
    captions = [_caption(mistake) for mistake in shown]
    pictures = [_picture(console, mistake.image) for mistake in shown]
    cells = [picture + caption for picture, caption in zip(pictures, captions, strict=True)]
    width = max((len(line) for cell in cells for line in cell), default=1) + _GAP
    a_line = max(1, (console.width + _GAP) // width)
    for at in range(0, len(cells), a_line):
        console.print()
        for row in zip(*cells[at : at + a_line], strict=True):
            line = Text().join(cell + " " * (width - len(cell)) for cell in row)
            line.rstrip()
            console.print(line, no_wrap=True, overflow="crop", crop=True)


def _caption(mistake: Mistake) -> list[Text]:
    return [
        Text.assemble(f"{mistake.label} taken for ", (str(mistake.predicted), "bold")),
        Text(f"row {mistake.row}, p {mistake.confidence:.3f}", "dim"),
    ]


def _picture(console: Console, image: Image | None) -> list[Text]:
    if image is None:
        return []
    image = shrunk(image, _MOST_COLUMNS)
    if len(image) % 2:
        image = np.concatenate([image, np.zeros_like(image[:1])])
    pairs = image.reshape(len(image) // 2, 2, -1)  # (lines, upper and lower, columns)
    if console.encoding.lower() not in ("utf-8", "utf8"):
        shades = pairs.mean(axis=1) * ((len(_SHADES) - 1) / 255)
        return [Text("".join(_SHADES[round(shade)] for shade in line)) for line in shades.tolist()]
    if console.no_color or console.color_system is None:
        return [
            Text("".join(" ▀▄█"[2 * (lower > _INK) + (upper > _INK)] for upper, lower in line.T.tolist()))
            for line in pairs
        ]
    return [
        Text.assemble(*(("▀", _style(upper, lower)) for upper, lower in line.T.tolist())) for line in pairs
    ]


def _style(upper: int, lower: int) -> Style:
    return Style(color=f"rgb({upper},{upper},{upper})", bgcolor=f"rgb({lower},{lower},{lower})")
