"""The interactive picture of nearest views: every source, context and length, in one page."""

import io
from base64 import b64encode
from typing import Any

import numpy as np
from PIL import Image

from contextssl_jax.evaluation.neighbours import Neighbours
from contextssl_jax.reports.page import Explorer

_LARGEST = 5_000_000  # characters of all images, so that a page stays below 8 MB
_QUALITY = 90


def explorer(neighbours: Neighbours) -> Explorer:
    """Return the picture of as many records as a page has room for, at least one."""
    encoded: dict[int, str] = {}
    records = 0
    for m in range(len(neighbours.sources)):
        own = _views(neighbours, m)
        new = {i: _encode(neighbours.images[i]) for i in own if i not in encoded}
        if m and sum(map(len, (encoded | new).values())) > _LARGEST:
            break
        encoded |= new
        records += 1
    place = {view: i for i, view in enumerate(encoded)}
    numbers = np.vectorize(place.__getitem__, otypes=[int])
    data: dict[str, Any] = {
        "environments": [
            {"name": name, "observed": [group in name.split("+") for group in neighbours.groups]}
            for name in neighbours.environments
        ],
        "lengths": list(neighbours.lengths),
        "groups": list(neighbours.groups),
        "images": list(encoded.values()),
        "distances": neighbours.distances[list(encoded)].round(2).tolist(),
        "sources": numbers(neighbours.sources[:records]).tolist(),
        "targets": numbers(neighbours.targets[:records]).tolist(),
        "nearest": numbers(neighbours.nearest[:records]).tolist(),
        "means": neighbours.mean_distances[:records].round(2).tolist(),
    }
    return Explorer(
        "Nearest views",
        "The model gets the source and the part of the action to the target that its context shows,"
        " and predicts the target's embedding. Bars: distance of a view's parameters from the"
        " target's, in standard deviations.",
        data,
    )


def _views(neighbours: Neighbours, m: int) -> list[int]:
    """Return the indices of all images of a record."""
    ends = [neighbours.sources[m], neighbours.targets[m]]
    return np.unique([*ends, *neighbours.nearest[m].ravel()]).tolist()


def _encode(image: np.ndarray) -> str:
    """Return an image, uint8 [H, W, 3], as a base64 JPEG with colors at full resolution."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=_QUALITY, subsampling=0, optimize=True)
    return b64encode(file.getvalue()).decode()
