"""Lenses: from a point in the camera's frame to normalized image coordinates, and back; one pair per model.

Normalized image coordinates are (pixel - principal point) / focal length. The models are those of OpenCV and
COLMAP; `Lens` says in which order a model's coefficients stand. Inverses without a closed form are found by
Newton's method with the exact Jacobian.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

NEWTON_STEPS = 10
COEFFICIENTS = 12  # of the model with the most


class Lens(IntEnum):
    """The models. Their numbers are kept in checkpoints; unused coefficients are zero."""

    BROWN = 0  # perspective; k1 k2 p1 p2 k3 k4 k5 k6, OpenCV's order: the radial part is rational
    FISHEYE = 1  # Kannala-Brandt, OpenCV's fisheye: k1 k2 k3 k4
    THIN_PRISM_FISHEYE = 2  # k1 k2 p1 p2 k3 k4 s1 s2
    RADIAL_TANGENTIAL_PRISM_FISHEYE = 3  # k1 ... k6, p2 p1, s1 s2 s3 s4 (Aria's Fisheye624)
    FIELD_OF_VIEW = 4  # omega (Devernay and Faugeras, 2001)
    DIVISION = 5  # k (Fitzgibbon, 2001)
    UNIFIED = 6  # alpha beta, the enhanced unified camera model (Khomutenko et al., 2016)
    EQUIRECTANGULAR = 7  # none: longitude and latitude


def distort(plane: Tensor, coefficients: Tensor) -> Tensor:
    """Brown distortion of points on the plane z = 1.

    plane: [N, 2] ideal x/z, y/z. coefficients: [N, 8 or more]. Returns [N, 2]. Differentiable in both.
    """
    return _distort_with_jacobian(plane, coefficients)[0]


def undistort(plane: Tensor, coefficients: Tensor) -> Tensor:
    """Inverse of `distort`: distorted [N, 2] to ideal x/z, y/z [N, 2]. Differentiable in both."""
    return _newton(_distort_with_jacobian, plane, coefficients)


Jacobian = tuple[Tensor, Tensor, Tensor, Tensor]  # a, b, c, d of [[a, b], [c, d]]
Bend = Callable[[Tensor, Tensor], tuple[Tensor, Jacobian]]


def _newton(bend: Bend, plane: Tensor, coefficients: Tensor) -> Tensor:
    """The points that `bend` maps to `plane`; all of [N, 2]."""
    ideal = plane
    for _ in range(NEWTON_STEPS):
        image, (a, b, c, d) = bend(ideal, coefficients)
        error = image - plane
        determinant = a * d - b * c
        step = torch.stack(
            [d * error[:, 0] - b * error[:, 1], a * error[:, 1] - c * error[:, 0]], dim=-1
        ) / determinant.unsqueeze(-1)
        ideal = ideal - step
    return ideal


def _distort_with_jacobian(plane: Tensor, coefficients: Tensor) -> tuple[Tensor, Jacobian]:
    k1, k2, p1, p2, k3, k4, k5, k6 = coefficients[:, :8].unbind(-1)
    x, y = plane.unbind(-1)
    r2 = x * x + y * y
    above = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    below = 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
    radial = above / below
    slope_above = k1 + r2 * (2 * k2 + r2 * 3 * k3)
    slope_below = k4 + r2 * (2 * k5 + r2 * 3 * k6)
    slope = (slope_above - radial * slope_below) / below  # d radial / d r^2
    return _radial_and_tangential(plane, radial, slope, p1, p2)


def _radial_and_tangential(
    plane: Tensor, radial: Tensor, slope: Tensor, p1: Tensor, p2: Tensor
) -> tuple[Tensor, Jacobian]:
    """plane * radial + the tangential part. slope: d radial / d r^2. Without prisms the Jacobian is symmetric."""
    x, y = plane.unbind(-1)
    r2 = x * x + y * y
    image = torch.stack(
        [
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        ],
        dim=-1,
    )
    dx_dx = radial + 2 * slope * x * x + 2 * p1 * y + 6 * p2 * x
    dx_dy = 2 * slope * x * y + 2 * p1 * x + 2 * p2 * y
    dy_dy = radial + 2 * slope * y * y + 6 * p1 * y + 2 * p2 * x
    return image, (dx_dx, dx_dy, dx_dy, dy_dy)


def _prism(image: Tensor, jacobian: Jacobian, plane: Tensor, prism: Tensor) -> tuple[Tensor, Jacobian]:
    """Adds the thin prisms s1 r^2 + s2 r^4 to x and s3 r^2 + s4 r^4 to y. prism: [N, 4]."""
    s1, s2, s3, s4 = prism.unbind(-1)
    a, b, c, d = jacobian
    x, y = plane.unbind(-1)
    r2 = x * x + y * y
    slope_x, slope_y = 2 * (s1 + 2 * s2 * r2), 2 * (s3 + 2 * s4 * r2)
    shift = torch.stack([r2 * (s1 + s2 * r2), r2 * (s3 + s4 * r2)], dim=-1)
    return image + shift, (a + slope_x * x, b + slope_x * y, c + slope_y * x, d + slope_y * y)


def _thin_prism_bend(plane: Tensor, coefficients: Tensor) -> tuple[Tensor, Jacobian]:
    k1, k2, p1, p2, k3, k4, s1, s3 = coefficients[:, :8].unbind(-1)
    r2 = plane.square().sum(-1)
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * (k3 + r2 * k4)))
    slope = k1 + r2 * (2 * k2 + r2 * (3 * k3 + r2 * 4 * k4))
    none = torch.zeros_like(s1)
    bent = _radial_and_tangential(plane, radial, slope, p1, p2)
    return _prism(*bent, plane, torch.stack([s1, none, s3, none], dim=-1))


def _tangential_prism_bend(plane: Tensor, coefficients: Tensor) -> tuple[Tensor, Jacobian]:
    p2, p1 = coefficients[:, 6:8].unbind(-1)
    bent = _radial_and_tangential(plane, torch.ones_like(p1), torch.zeros_like(p1), p1, p2)
    return _prism(*bent, plane, coefficients[:, 8:12])


# --- perspective -------------------------------------------------------------------------------------------


def _flat(points: Tensor) -> Tensor:
    depth = points[:, 2]
    safe = torch.where(depth.abs() < 1e-9, torch.full_like(depth, 1e-9), depth)
    return points[:, :2] / safe.unsqueeze(-1)


def _lifted(plane: Tensor) -> Tensor:
    return torch.cat([plane, torch.ones_like(plane[:, :1])], dim=-1)


def brown_plane(points: Tensor, coefficients: Tensor) -> Tensor:
    """Perspective projection, then `distort`; far out, where that folds back over the picture, without it.

    points: [N, 3], camera frame. coefficients: [N, 8 or more]. Returns [N, 2]. Differentiable in both.
    """
    plane = _flat(points)
    image, (a, b, c, d) = _distort_with_jacobian(plane, coefficients)
    folded = (a * d - b * c <= 0) | (a + d <= 0)  # no ray of the camera goes there: the polynomial was fitted within
    return torch.where(folded.unsqueeze(-1), plane, image)


def brown_directions(plane: Tensor, coefficients: Tensor) -> Tensor:
    """Directions [N, 3] with z = 1, of any length, whose image is `plane` [N, 2]; inverse of `brown_plane`.

    coefficients: [N, 8 or more]. Differentiable in both.
    """
    return _lifted(undistort(plane, coefficients))


# --- fisheye -----------------------------------------------------------------------------------------------


def fisheye_plane(points: Tensor, coefficients: Tensor) -> Tensor:
    """Fisheye projection of points in the camera's frame to normalized image coordinates.

    points: [N, 3] (x right, y down, z forward; z may be negative). coefficients: [N, 4 or more].
    Returns [N, 2]. Differentiable in both away from the axis.
    """
    return _equidistant(points, coefficients[:, :4])


def fisheye_directions(plane: Tensor, coefficients: Tensor) -> Tensor:
    """Unit directions in the camera's frame of fisheye image points; inverse of `fisheye_plane`.

    plane: [N, 2] normalized image coordinates. coefficients: [N, 4 or more]. Returns [N, 3].
    Differentiable in both away from the axis.
    """
    return _equidistant_directions(plane, coefficients[:, :4])


def _equidistant(points: Tensor, powers: Tensor) -> Tensor:
    radius = points[:, :2].norm(dim=-1)
    theta = torch.atan2(radius, points[:, 2])
    # On the optical axis the image is the limit: theta / radius -> 1 / z.
    bent = _polynomial(theta, powers)[0] / radius.clamp_min(1e-9)
    factor = torch.where(radius < 1e-9, 1 / points[:, 2].clamp_min(1e-9), bent)
    return points[:, :2] * factor.unsqueeze(-1)


def _equidistant_directions(plane: Tensor, powers: Tensor) -> Tensor:
    radius = plane.norm(dim=-1).clamp_min(1e-9)
    theta = radius
    for _ in range(NEWTON_STEPS):
        value, slope = _polynomial(theta, powers)
        # Beyond the image circle there is no answer: it stays finite.
        theta = (theta - (value - radius) / slope).clamp(0, torch.pi)
    sine = torch.sin(theta) / radius
    return torch.cat([plane * sine.unsqueeze(-1), torch.cos(theta).unsqueeze(-1)], dim=-1)


def _polynomial(theta: Tensor, powers: Tensor) -> tuple[Tensor, Tensor]:
    """theta (1 + k1 theta^2 + k2 theta^4 + ...) and its slope. powers: [N, K]."""
    t2 = theta * theta
    value, slope = torch.zeros_like(theta), torch.zeros_like(theta)
    for power in range(powers.shape[1], 0, -1):
        value = t2 * (powers[:, power - 1] + value)
        slope = t2 * ((2 * power + 1) * powers[:, power - 1] + slope)
    return theta * (1 + value), 1 + slope


def _no_powers(plane: Tensor) -> Tensor:
    return plane.new_zeros(len(plane), 0)


def thin_prism_plane(points: Tensor, coefficients: Tensor) -> Tensor:
    """Fisheye with tangential distortion and thin prisms on top of the angle; [N, 3] -> [N, 2].

    coefficients: [N, 8 or more]. Differentiable in both away from the axis.
    """
    return _thin_prism_bend(_equidistant(points, _no_powers(points)), coefficients)[0]


def thin_prism_directions(plane: Tensor, coefficients: Tensor) -> Tensor:
    """Inverse of `thin_prism_plane`: [N, 2] -> unit [N, 3].

    coefficients: [N, 8 or more]. Differentiable in both away from the axis.
    """
    return _equidistant_directions(_newton(_thin_prism_bend, plane, coefficients), _no_powers(plane))


def tangential_prism_plane(points: Tensor, coefficients: Tensor) -> Tensor:
    """Fisheye with six radial powers, then tangential distortion and thin prisms; [N, 3] -> [N, 2].

    coefficients: [N, 12]. Differentiable in both away from the axis.
    """
    return _tangential_prism_bend(_equidistant(points, coefficients[:, :6]), coefficients)[0]


def tangential_prism_directions(plane: Tensor, coefficients: Tensor) -> Tensor:
    """Inverse of `tangential_prism_plane`: [N, 2] -> unit [N, 3].

    coefficients: [N, 12]. Differentiable in both away from the axis.
    """
    straight = _newton(_tangential_prism_bend, plane, coefficients)
    return _equidistant_directions(straight, coefficients[:, :6])


# --- closed forms ------------------------------------------------------------------------------------------


def _omega(coefficients: Tensor) -> Tensor:
    """The angle omega; a tiny one where it is zero, where the model is the pinhole's in the limit."""
    omega = coefficients[:, 0].abs()
    return torch.where(omega < 1e-3, torch.full_like(omega, 1e-3), omega)


def field_of_view_plane(points: Tensor, coefficients: Tensor) -> Tensor:
    """The radius is atan(2 r tan(omega / 2)) / omega; [N, 3] -> [N, 2].

    coefficients: [N, 1 or more]. Differentiable in both away from the axis; below 1e-3 not in omega.
    """
    flat, omega = _flat(points), _omega(coefficients)
    radius = flat.norm(dim=-1).clamp_min(1e-6)
    bent = torch.atan(2 * radius * torch.tan(omega / 2)) / omega
    return flat * (bent / radius).unsqueeze(-1)


def field_of_view_directions(plane: Tensor, coefficients: Tensor) -> Tensor:
    """Inverse of `field_of_view_plane`: [N, 2] -> [N, 3] with z = 1.

    coefficients: [N, 1 or more]. Differentiable in both away from the axis; below 1e-3 not in omega.
    """
    omega = _omega(coefficients)
    radius = plane.norm(dim=-1).clamp_min(1e-6)
    angle = (radius * omega).clamp_max(1.57)  # a right angle has no image
    straight = torch.tan(angle) / (2 * torch.tan(omega / 2))
    return _lifted(plane * (straight / radius).unsqueeze(-1))


def division_plane(points: Tensor, coefficients: Tensor) -> Tensor:
    """The root of ideal = image / (1 + k |image|^2) that tends to the ideal point with k; [N, 3] -> [N, 2].

    coefficients: [N, 1 or more]. Differentiable in both.
    """
    flat = _flat(points)
    inside = 1 - 4 * coefficients[:, 0] * flat.square().sum(-1)
    return flat * (2 / (1 + inside.clamp_min(1e-9).sqrt())).unsqueeze(-1)


def division_directions(plane: Tensor, coefficients: Tensor) -> Tensor:
    """Inverse of `division_plane`: [N, 2] -> [N, 3], of any length.

    coefficients: [N, 1 or more]. Differentiable in both.
    """
    depth = 1 + coefficients[:, :1] * plane.square().sum(-1, keepdim=True)
    return torch.cat([plane, depth], dim=-1)


def unified_plane(points: Tensor, coefficients: Tensor) -> Tensor:
    """x, y over alpha sqrt(beta (x^2 + y^2) + z^2) + (1 - alpha) z; [N, 3] -> [N, 2].

    coefficients: [N, 2 or more]. Differentiable in both.
    """
    alpha, beta = coefficients[:, :2].unbind(-1)
    x, y, z = points.unbind(-1)
    distance = (beta * (x * x + y * y) + z * z).clamp_min(1e-18).sqrt()
    return points[:, :2] / (alpha * distance + (1 - alpha) * z).clamp_min(1e-9).unsqueeze(-1)


def unified_directions(plane: Tensor, coefficients: Tensor) -> Tensor:
    """Inverse of `unified_plane`: [N, 2] -> [N, 3], of any length.

    coefficients: [N, 2 or more]. Differentiable in both.
    """
    alpha, beta = coefficients[:, :2].unbind(-1)
    r2 = plane.square().sum(-1)
    root = (1 - (2 * alpha - 1) * beta * r2).clamp_min(1e-9).sqrt()
    depth = (1 - beta * alpha * alpha * r2) / (alpha * root + 1 - alpha)
    return torch.cat([plane, depth.unsqueeze(-1)], dim=-1)


def equirectangular_plane(points: Tensor, coefficients: Tensor) -> Tensor:
    """Longitude (to the right) and latitude (downwards) in radians; [N, 3] -> [N, 2].

    coefficients: not used. Differentiable in points away from the vertical axis.
    """
    x, y, z = points.unbind(-1)
    across = (x * x + z * z).clamp_min(1e-18).sqrt()
    return torch.stack([torch.atan2(x, z), torch.atan2(y, across)], dim=-1)


def equirectangular_directions(plane: Tensor, coefficients: Tensor) -> Tensor:
    """Inverse of `equirectangular_plane`: [N, 2] -> unit [N, 3].

    coefficients: not used. Differentiable in plane.
    """
    longitude, latitude = plane.unbind(-1)
    across = torch.cos(latitude)
    return torch.stack(
        [across * torch.sin(longitude), torch.sin(latitude), across * torch.cos(longitude)], dim=-1
    )


class Projection(NamedTuple):
    """The two directions of a model: points [N, 3] -> plane [N, 2], and plane [N, 2] -> directions [N, 3]."""

    plane: Callable[[Tensor, Tensor], Tensor]
    directions: Callable[[Tensor, Tensor], Tensor]


PROJECTIONS = {
    Lens.BROWN: Projection(brown_plane, brown_directions),
    Lens.FISHEYE: Projection(fisheye_plane, fisheye_directions),
    Lens.THIN_PRISM_FISHEYE: Projection(thin_prism_plane, thin_prism_directions),
    Lens.RADIAL_TANGENTIAL_PRISM_FISHEYE: Projection(tangential_prism_plane, tangential_prism_directions),
    Lens.FIELD_OF_VIEW: Projection(field_of_view_plane, field_of_view_directions),
    Lens.DIVISION: Projection(division_plane, division_directions),
    Lens.UNIFIED: Projection(unified_plane, unified_directions),
    Lens.EQUIRECTANGULAR: Projection(equirectangular_plane, equirectangular_directions),
}
