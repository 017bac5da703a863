"""The interactive picture has every state, and its page stays small."""

import base64
import io
import json
import re

import numpy as np
from PIL import Image

from contextssl_jax.evaluation.neighbours import Neighbours
from contextssl_jax.reports.explorer import explorer
from contextssl_jax.reports.page import html

LIMIT = 8_000_000  # of a page, bytes


def neighbours(
    records=3, environments=("crop", "blur", "crop+blur", "none"), views=6, side=16
) -> Neighbours:
    """Return neighbours with images of noise, which compress worst; every view occurs."""
    rng = np.random.default_rng(0)
    lengths, n = (0, 2, 14, 30, 126), records * views
    shape = records, len(environments), len(lengths), 6
    spread = np.arange(np.prod(shape[1:])) % (views - 2) + 2
    nearest = views * np.arange(records)[:, None, None, None] + spread.reshape(1, *shape[1:])
    return Neighbours(
        environments,
        lengths,
        ("crop", "blur"),
        rng.integers(0, 256, (n, side, side, 3), np.uint8),
        rng.random((n, 2)),
        np.arange(records) * views,
        np.arange(records) * views + 1,
        nearest,
        rng.random((records, 2)),
    )


def embedded(page: str) -> dict:
    (text,) = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page)
    return json.loads(text)


def test_every_source_context_and_length_has_its_views():
    given = neighbours()
    data = embedded(html("A page", [], [explorer(given)], {}))
    names = [environment["name"] for environment in data["environments"]]
    assert names == list(given.environments)
    observed = [environment["observed"] for environment in data["environments"]]
    assert observed == [[True, False], [False, True], [True, True], [False, False]]
    assert np.shape(data["nearest"]) == given.nearest.shape
    assert len(data["images"]) == len(data["distances"]) == 18
    for ours, theirs in (
        (data["nearest"], given.nearest),
        (data["sources"], given.sources),
        (data["targets"], given.targets),
    ):
        distances = np.asarray(data["distances"])[np.asarray(ours)]
        np.testing.assert_allclose(distances, given.distances[theirs], atol=0.005)
    view = data["nearest"][1][2][3][0]
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(data["images"][view]))), float)
    errors = [np.abs(image - other).mean() for other in given.images]
    assert np.argmin(errors) == given.nearest[1, 2, 3, 0]


def test_a_page_stays_below_its_limit_even_of_noise():
    given = neighbours(records=12, views=50, side=96)
    page = html("A page", [], [explorer(given)], {})
    assert 3_000_000 < len(page.encode()) < LIMIT
    shown = len(embedded(page)["sources"])
    assert 1 <= shown < 12  # all are too many
    assert len(embedded(page)["nearest"]) == len(embedded(page)["means"]) == shown


def test_names_cannot_leave_the_data():
    name = "</script><script>alert(1)</script>"
    given = neighbours(environments=(name,))._replace(groups=(name, "b"))
    page = html("A page", [], [explorer(given)], {})
    assert name not in page and page.count("<script") == 2
    assert embedded(page)["environments"][0]["name"] == name


def test_the_picture_needs_nothing_else():
    page = html("A page", [], [explorer(neighbours())], {})
    assert not re.search(r"https?://|@import|url\(|fetch\(|innerHTML|eval\(", page)
    assert "<noscript>" in page and 'aria-live="polite"' in page
    assert re.search(r'<input type="range" [^>]*min="0" max="4" step="1"', page)
    assert '<label for="explorer-length">' in page
