"""Lens distortion of normalized image coordinates, forward and inverse (OpenCV's two models).

Brown: coefficients k1 k2 p1 p2 k3 k4 k5 k6 (OpenCV's order), radial part rational.
Fisheye (Kannala-Brandt): the first four columns hold k1 k2 k3 k4, the others are zero.
"""

import torch
from torch import Tensor

NEWTON_STEPS = 10


def distort(plane: Tensor, coefficients: Tensor) -> Tensor:
    """Brown distortion of points on the plane z = 1.

    plane: [N,2] ideal x/z, y/z. coefficients: [N,8]. Returns [N,2]. Differentiable in both.
    """
    return _distort_with_jacobian(plane, coefficients)[0]


def undistort(plane: Tensor, coefficients: Tensor) -> Tensor:
    """Inverse of `distort` by Newton's method with the exact 2x2 Jacobian.

    plane: [N,2] distorted. coefficients: [N,8]. Returns [N,2] ideal x/z, y/z. Differentiable in both.
    """
    ideal = plane
    for _ in range(NEWTON_STEPS):
        image, (a, b, d) = _distort_with_jacobian(ideal, coefficients)
        error = image - plane
        # The Jacobian [[a, b], [b, d]] is symmetric: the distortion is a gradient field of its own potential.
        determinant = a * d - b * b
        step = torch.stack(
            [d * error[:, 0] - b * error[:, 1], a * error[:, 1] - b * error[:, 0]], dim=-1
        ) / determinant.unsqueeze(-1)
        ideal = ideal - step
    return ideal


Symmetric = tuple[Tensor, Tensor, Tensor]  # a, b, d of [[a, b], [b, d]]


def _distort_with_jacobian(plane: Tensor, coefficients: Tensor) -> tuple[Tensor, Symmetric]:
    k1, k2, p1, p2, k3, k4, k5, k6 = coefficients.unbind(-1)
    x, y = plane.unbind(-1)
    r2 = x * x + y * y
    above = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    below = 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
    radial = above / below
    slope_above = k1 + r2 * (2 * k2 + r2 * 3 * k3)
    slope_below = k4 + r2 * (2 * k5 + r2 * 3 * k6)
    slope = (slope_above - radial * slope_below) / below  # d radial / d r^2
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
    return image, (dx_dx, dx_dy, dy_dy)


def fisheye_plane(points: Tensor, coefficients: Tensor) -> Tensor:
    """Fisheye projection of points in the camera's frame to normalized image coordinates.

    points: [N,3] (x right, y down, z forward; z may be negative). coefficients: [N,8].
    Returns [N,2]. Differentiable in both away from the axis.
    """
    radius = points[:, :2].norm(dim=-1)
    theta = torch.atan2(radius, points[:, 2])
    # On the optical axis the image is the limit: theta / radius -> 1 / z.
    bent = _polynomial(theta, coefficients)[0] / radius.clamp_min(1e-9)
    factor = torch.where(radius < 1e-9, 1 / points[:, 2].clamp_min(1e-9), bent)
    return points[:, :2] * factor.unsqueeze(-1)


def fisheye_directions(plane: Tensor, coefficients: Tensor) -> Tensor:
    """Unit directions in the camera's frame of fisheye image points; inverse of `fisheye_plane`.

    plane: [N,2] normalized image coordinates. coefficients: [N,8]. Returns [N,3].
    Differentiable in both away from the axis.
    """
    radius = plane.norm(dim=-1).clamp_min(1e-9)
    theta = radius
    for _ in range(NEWTON_STEPS):
        value, slope = _polynomial(theta, coefficients)
        theta = theta - (value - radius) / slope
    sine = torch.sin(theta) / radius
    return torch.cat([plane * sine.unsqueeze(-1), torch.cos(theta).unsqueeze(-1)], dim=-1)


def _polynomial(theta: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
    k1, k2, k3, k4 = coefficients[:, :4].unbind(-1)
    t2 = theta * theta
    value = theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))
    slope = 1 + t2 * (3 * k1 + t2 * (5 * k2 + t2 * (7 * k3 + t2 * 9 * k4)))
    return value, slope
