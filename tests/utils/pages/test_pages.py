"""Parts of pages: what is escaped, what may run, where a curve goes through."""

from __future__ import annotations

import base64
import hashlib
import re

import numpy as np

from utils.pages import curves, html
from utils.pages.camera_map import camera_map, plane_across
from utils.pages.curves import Curve, chart

HOSTILE = "<script>alert(1)</script>\" onload='x' &\x1b[0m"


def test_text_is_harmless_everywhere() -> None:
    made = html.table([[HOSTILE, 3]], [HOSTILE]) + html.lines(HOSTILE + "\n" + HOSTILE)
    assert "<script" not in made and "\x1b" not in made and "onload='" not in made and '" onload' not in made
    assert made.count("&lt;script&gt;") == 4 and "\n" in html.lines("a\nb")


def test_a_page_runs_its_own_script_alone() -> None:
    script = "document.title = 1;"
    page = html.page(HOSTILE, ["<p>x</p>"], script=script)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None and policy[1].startswith("default-src 'none'")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy[1] and f"<script>{script}</script>" in page
    assert "script-src" not in html.page("plain", []) and "<script" not in html.page(HOSTILE, [])


def test_a_curve_goes_through_its_points() -> None:
    """Steps from 0 to 10 fill the width; values from 0 to 1 leave a twentieth above and below."""
    drawn = chart("t", [Curve("a<b", np.array([0.0, 5.0, 10.0]), np.array([0.0, 1.0, np.nan]))])
    assert "a&lt;b 1" in drawn
    points = re.search(r'points="([^"]*)"', drawn)
    assert points is not None
    (x0, y0), (x1, y1) = ([float(n) for n in pair.split(",")] for pair in points[1].split())
    high = curves.HEIGHT - curves.TOP - curves.BOTTOM
    assert (x0, x1) == (curves.LEFT, curves.WIDTH - curves.RIGHT), "what is no number takes no room"
    assert abs(y0 - (curves.HEIGHT - curves.BOTTOM - high * 0.05 / 1.1)) < 0.06
    assert abs(y1 - (curves.TOP + high * 0.05 / 1.1)) < 0.06


def test_a_logarithmic_axis_has_equal_decades_and_round_numbers() -> None:
    drawn = chart("t", [Curve("a", np.arange(4.0), np.array([1.0, 10.0, 100.0, -1.0]))], logarithmic=True)
    points = re.search(r'points="([^"]*)"', drawn)
    assert points is not None
    heights = [float(pair.split(",")[1]) for pair in points[1].split()]
    assert len(heights) == 3 and abs(heights[0] - 2 * heights[1] + heights[2]) < 0.11
    assert all(f">{number}</text>" in drawn for number in (1, 10, 100))


def test_long_curves_are_thinned_to_means_and_short_ones_left_out() -> None:
    steps = np.arange(30_000.0)
    thin = Curve("a", steps, steps % 2).thinned(False)
    assert len(thin.steps) == curves.MOST_POINTS and np.allclose(thin.values, 0.5)
    assert chart("t", [Curve("a", np.array([1.0]), np.array([1.0]))]) == ""
    assert "polyline" in chart("t", [Curve("a", np.arange(2.0), np.zeros(2))]), "a constant has a range too"


def test_a_map_shows_cameras_from_above() -> None:
    up = np.array([0.0, 0.0, 2.0])
    right, front = plane_across(up)
    assert np.allclose([right @ up, front @ up, right @ front], 0.0)
    centers = np.stack([2 * right, 3 * front + 5 * up])
    drawn = camera_map(centers, -centers, up, colors=["#1", "#2"], names=[HOSTILE, "b"])
    dots = re.findall(r'<circle cx="([^"]*)" cy="([^"]*)"', drawn)
    assert abs(float(dots[0][0]) - 2.0) < 1e-3 and "<script" not in drawn
