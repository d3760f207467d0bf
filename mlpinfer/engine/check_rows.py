"""The rows that callers give a predictor, in the shape that evaluators take."""

from __future__ import annotations

from mlpinfer.engine.backends.base import Backend
from mlpinfer.engine.backends.convert import fetch
from mlpinfer.errors import InputError
from mlpinfer.model.checks import check_scaled
from mlpinfer.model.network import Network
from mlpinfer.model.ops import Array


def check_rows(x: Array, backend: Backend, network: Network, scale: float | None) -> tuple[Array, bool]:
    """Return `x` as rows (N, D), and whether it was a single one.

    Parameters
    ----------
    x : array, shape (N, D) or (D,); where D = H * H also (H, H), (N, H, H), (N, 1, H, H)
        An array of `backend`, or anything that can be brought to the host.
    backend : Backend
    network : Network
        Which tells D and H.
    scale : float or None
        What rows are multiplied by; rows of uint8 need one.

    Raises
    ------
    InputError
    """
    if not backend.owns(x):
        try:
            x = fetch(x)
        except (ValueError, TypeError, NotImplementedError):
            raise InputError(f"expected an array of numbers, found {type(x).__name__}") from None
    if x.dtype.kind not in "fiub":
        raise InputError(f"expected rows of numbers, found dtype {x.dtype}")
    check_scaled(x.dtype, scale)
    features, side = network.sizes[0], network.image_side
    image = (side, side) if side else None
    if x.ndim == 2 and x.shape[1] == features:
        return x, False
    if x.shape == (features,) or x.shape == image:
        return x.reshape(1, features), True
    if image and x.shape[1:] in (image, (1, *image)):
        return x.reshape(len(x), features), False
    images = f" or images of {side} x {side}" if image else ""
    raise InputError(f"expected rows of {features} features{images}, found shape {x.shape}")
