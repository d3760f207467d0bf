"""A score as a web page: one file that needs no other and asks no network.

Made with Jinja2 and matplotlib (extra ``report``). Whatever comes from data or options is escaped by
the template; a content security policy forbids everything that does not stand in the page.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import os
import re
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpinfer._text import printable
from mlpinfer.errors import missing_package
from mlpinfer.evaluation.metrics import ClassificationMetrics
from mlpinfer.evaluation.mistakes import Mistake, Mistakes, shrunk
from mlpinfer.evaluation.report import ScoreReport
from mlpinfer.io.files import atomic_write
from mlpinfer.render import plots
from mlpinfer.render.text import batches_text, parity_text, scale_text

#: No more mistakes are shown, nor pixels of them, so that the page stays small.
MOST_MISTAKES, _MOST_PIXELS = 500, 2**20
#: Wider images are shrunk.
_MOST_WIDE = 64


def check_packages() -> None:
    """See that a page can be made, before anything is computed for it.

    Raises
    ------
    MlpInferError
        If a package is missing.
    """
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
        import PIL  # noqa: F401
    except ImportError:
        raise missing_package("a report as a page", "jinja2", "matplotlib", "pillow") from None


def write_page(
    path: str | os.PathLike[str], report: ScoreReport, mistakes: Mistakes | None, command: str
) -> None:
    """Write a score as an HTML file, whole or not at all.

    Parameters
    ----------
    path : path
    report : ScoreReport
    mistakes : Mistakes, optional
        The gallery.
    command : str
        What made it.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mlpinfer.render", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"scale": scale_text, "picture": _data_uri}
    text = environment.get_template("page.html").render(
        **_pictures(report),
        report=report,
        stages=vars(report.timing.stages) if report.timing.stages else None,
        environment=vars(report.environment),
        mistakes=_gallery(mistakes) if mistakes else (),
        wrong=mistakes.total if mistakes else 0,
        batches=batches_text(report),
        parity=parity_text(report) if report.parity else None,
        command=printable(command),
        name=printable(report.data.name),
    )
    with atomic_write(path) as file:
        file.write(_with_policy(text).encode())


def _gallery(mistakes: Mistakes) -> list[Mistake]:
    """Return mistakes as they are shown: small images, and no more than a small page holds."""
    shown, pixels = [], 0
    for mistake in mistakes.shown[:MOST_MISTAKES]:
        image = None if mistake.image is None else shrunk(mistake.image, _MOST_WIDE)
        pixels += 0 if image is None else image.size
        if pixels > _MOST_PIXELS:
            break
        shown.append(dataclasses.replace(mistake, image=image))
    return shown


def _pictures(report: ScoreReport) -> dict[str, Any]:
    confusion = latencies = None
    if isinstance(report.metrics, ClassificationMetrics):
        confusion = plots.confusion_svg(report.metrics.confusion)
    if report.timing.batch_latency_ms and len(report.latencies_ms) > 1:
        of = report.timing.batch_latency_ms
        latencies = plots.latency_svg(report.latencies_ms, {"p50": of.p50, "p99": of.p99})
    return {"confusion": confusion, "latencies": latencies}


def _with_policy(text: str) -> str:
    """Allow the page's own script, by its digest, and no other."""
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return text.replace("SCRIPT-DIGEST", digest, 1)


def _data_uri(image: npt.NDArray[np.uint8]) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
