"""Calibrated cameras and the rays that they see.

OpenCV axes (x right, y down, z forward), camera-to-world poses. The center of the top-left pixel is
(0.5, 0.5), so the ray of image point (u, v) points along [(u - cx) / fx, (v - cy) / fy, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dataio import lens as lenses
from dataio.lens import Lens


@dataclass(frozen=True)
class Rays:
    """R half-lines in scene units."""

    origins: Tensor  # [R, 3]
    directions: Tensor  # [R, 3], unit length
    near: Tensor  # [R], distance along the ray where the medium begins
    far: Tensor  # [R], may be inf
    camera: Tensor  # [R] int64, index into the scene's Cameras; -1 for a camera that took no photograph
    pixel: Tensor | None = None  # [R], width of a pixel at distance 1

    def __len__(self) -> int:
        return len(self.origins)

    def __getitem__(self, index: slice | Tensor) -> Rays:
        return self._each(lambda tensor: tensor[index])

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Rays:
        """The same rays on another device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Rays:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {name: None if value is None else change(value) for name, value in values.items()}
        return Rays(**changed)

    def at(self, t: Tensor) -> Tensor:
        """Positions at distance t: [R] -> [R, 3], or [R, S] -> [R, S, 3]. Differentiable in everything."""
        if t.ndim == 1:
            return self.origins + t.unsqueeze(-1) * self.directions
        return self.origins.unsqueeze(1) + t.unsqueeze(-1) * self.directions.unsqueeze(1)


@dataclass(frozen=True)
class Cameras:
    """C calibrated cameras; turns (camera, pixel) into rays and points into pixels."""

    camera_to_world: Tensor  # [C, 3, 4] float32; inside a Scene "world" is the scene frame
    intrinsics: Tensor  # [C, 4] float32: fx, fy, cx, cy in pixels
    size: Tensor  # [C, 2] int64: width, height
    distortion: Tensor  # [C, 8 or 12] float32: coefficients in the order that `Lens` gives
    lens: Tensor  # [C] int64, numbers of `Lens`
    near: Tensor  # [C] float32, smallest distance along a ray that is looked at

    @classmethod
    def make(
        cls,
        camera_to_world: npt.ArrayLike | Tensor,
        intrinsics: npt.ArrayLike | Tensor,
        size: npt.ArrayLike | Tensor,
        *,
        distortion: npt.ArrayLike | Tensor | None = None,
        lens: npt.ArrayLike | Tensor | None = None,
        near: float | npt.ArrayLike | Tensor = 0.05,
    ) -> Cameras:
        """Cameras from arrays of any float type, rounded to float32 once.

        camera_to_world: [C, 3, 4] or [C, 4, 4], OpenCV axes. intrinsics: [C, 4] or [4] for all, pixels.
        size: [C, 2] or [2], width and height. distortion: [C, 8], [C, 12] or [8]. lens: [C] numbers of `Lens`, or
        bools that mean a fisheye; Brown's if not given. near: one number or [C]. Differentiable in all float tensors.
        """
        pose = _tensor(camera_to_world, torch.float32)[:, :3, :]
        count = len(pose)
        bend = _tensor(np.zeros(8) if distortion is None else distortion, torch.float32)
        return cls(
            camera_to_world=pose.contiguous(),
            intrinsics=_tensor(intrinsics, torch.float32).expand(count, 4).contiguous(),
            size=_tensor(size, torch.int64).expand(count, 2).contiguous(),
            distortion=bend.expand(count, bend.shape[-1]).contiguous(),
            lens=_tensor(Lens.BROWN if lens is None else lens, torch.int64).expand(count).contiguous(),
            near=_tensor(near, torch.float32).expand(count).contiguous(),
        )

    def __len__(self) -> int:
        return len(self.camera_to_world)

    def __getitem__(self, index: slice | Tensor | npt.NDArray[np.integer]) -> Cameras:
        if isinstance(index, np.ndarray):
            index = torch.from_numpy(index.astype(np.int64)).to(self.camera_to_world.device)
        return Cameras(*(getattr(self, field.name)[index] for field in fields(self)))

    def to(self, device: torch.device | str) -> Cameras:
        """The same cameras on another device."""
        return Cameras(*(getattr(self, field.name).to(device) for field in fields(self)))

    def state(self) -> dict[str, Tensor]:
        """All tensors [C, ...] by name, on the CPU, for a checkpoint."""
        return {field.name: getattr(self, field.name).cpu() for field in fields(self)}

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> Cameras:
        """Inverse of `state`: the cameras of tensors [C, ...], on their device."""
        return cls(**state)

    @property
    def centers(self) -> Tensor:
        """[C, 3] positions of the cameras, in the frame of camera_to_world. Differentiable in poses."""
        return self.camera_to_world[:, :, 3]

    @property
    def forward(self) -> Tensor:
        """[C, 3] unit vectors along the optical axes, in the frame of camera_to_world. Differentiable in poses."""
        return self.camera_to_world[:, :, 2]

    # Asked once per object: on a GPU the answer costs a synchronization.
    @cached_property
    def _bending(self) -> list[Lens]:
        """The models that are in use, without the plain pinhole."""
        plain = (self.lens == Lens.BROWN) & self.distortion.eq(0).all(-1)
        return [Lens(number) for number in self.lens[~plain].unique().tolist()]

    def rays(self, camera: Tensor, pixels: Tensor) -> Rays:
        """The rays through image points.

        camera: [R] int64. pixels: [R, 2] float (u, v) in pixels; a pixel's center is its index + 0.5.
        Returns rays with the cameras' near and far = inf, in the frame of camera_to_world.
        Differentiable in pixels, poses, intrinsics and distortion.
        """
        intrinsics, pose, near = (
            x.index_select(0, camera) for x in (self.intrinsics, self.camera_to_world, self.near)
        )  # which is several times quicker than `[camera]`
        plane = (pixels - intrinsics[:, 2:]) / intrinsics[:, :2]
        x, y, z = self._local_directions(plane, camera).split(1, -1)
        directions = pose[:, :, 0] * x + pose[:, :, 1] * y + pose[:, :, 2] * z  # no product may round this
        return Rays(
            origins=pose[:, :, 3].contiguous(),  # they are gathered often, which is ten times slower from columns
            directions=directions / directions.norm(dim=-1, keepdim=True),
            near=near,
            far=torch.full_like(near, torch.inf),
            camera=camera,
            pixel=(intrinsics[:, 0] * intrinsics[:, 1]).rsqrt(),
        )

    def _local_directions(self, plane: Tensor, camera: Tensor) -> Tensor:
        directions = torch.cat([plane, torch.ones_like(plane[:, :1])], dim=-1)
        for kind in self._bending:
            mine = (self.lens[camera] == kind).unsqueeze(-1)
            bent = lenses.PROJECTIONS[kind].directions(plane, self.distortion[camera] * mine)
            directions = torch.where(mine, bent, directions)
        return directions

    def project(self, points: Tensor, camera: Tensor | int) -> tuple[Tensor, Tensor]:
        """Where points appear in an image.

        points: [N, 3] in the frame of camera_to_world. camera: [N] int64, or one index for all.
        Returns pixels [N, 2] (u, v) and z depth [N]; pixels mean something where depth > 0 (or fisheye, or panorama).
        Differentiable in points, poses, intrinsics and distortion.
        """
        if isinstance(camera, int):
            camera = torch.full((len(points),), camera, dtype=torch.int64, device=points.device)
        pose = self.camera_to_world[camera]
        local = (pose[:, :, :3] * (points - pose[:, :, 3]).unsqueeze(-1)).sum(1)
        depth = local[:, 2]
        safe = torch.where(depth.abs() < 1e-9, torch.full_like(depth, 1e-9), depth)
        plane = local[:, :2] / safe.unsqueeze(-1)
        for kind in self._bending:
            mine = (self.lens[camera] == kind).unsqueeze(-1)
            bent = lenses.PROJECTIONS[kind].plane(local, self.distortion[camera] * mine)
            plane = torch.where(mine, bent, plane)
        intrinsics = self.intrinsics[camera]
        return plane * intrinsics[:, :2] + intrinsics[:, 2:], depth

    @torch.no_grad()
    def near_points(self, points: Tensor, camera: Tensor) -> Tensor:
        """[N, 12] of the pinhole cameras that see what is near points as these do: exactly, with bent lenses to first
        order.

        points: [N, 3] in the frame of camera_to_world. camera: [N] int64. A row holds u, v and z of its point x and a
        matrix M by rows: x + d is seen at (u, v) + (a, b) / (z + c) with (a, b, c) = M d. z is negative where the point
        is not in front. Not differentiable.
        """
        pixels, depth = self.project(points, camera)
        pose, intrinsics = self.camera_to_world[camera], self.intrinsics[camera]
        if not self._bending:
            inward = pose[:, :, 2]
            off = intrinsics[:, 2:] - pixels
            across = intrinsics[:, :2, None] * pose[:, :, :2].mT + off[..., None] * inward[:, None]
            return torch.cat([pixels, depth[:, None], across.flatten(1), inward], 1)
        line = points - pose[:, :, 3]
        distance = line.norm(dim=-1, keepdim=True).clamp_min(1e-9)
        slopes = [distance * slope for slope in self._pixel_slopes(points, camera)]
        return torch.cat([pixels, torch.copysign(distance, depth[:, None]), *slopes, line / distance], 1)

    def _pixel_slopes(self, points: Tensor, camera: Tensor) -> list[Tensor]:
        """Of u and v the derivatives [N, 3] in the points [N, 3]."""
        with torch.enable_grad():
            x = points.detach().requires_grad_()
            pixels, _ = self.project(x, camera)
            return [torch.autograd.grad(pixels[:, i].sum(), x, retain_graph=True)[0] for i in (0, 1)]

    def pixel_grid(self, camera: int) -> Tensor:
        """[H*W, 2] float32 centers (u, v) of all pixels of one camera, in pixels, row by row."""
        width, height = (int(n) for n in self.size[camera])
        device = self.camera_to_world.device
        rows, columns = torch.meshgrid(
            torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
        )
        return torch.stack([columns, rows], dim=-1).reshape(-1, 2) + 0.5

    def scaled(self, factor: float) -> Cameras:
        """The cameras of images resized by `factor` > 0: whole sizes, intrinsics follow the true ratio."""
        size = (self.size.double() * factor).round().clamp_min(1).long()
        ratio = (size.double() / self.size.double()).repeat(1, 2)
        intrinsics = (self.intrinsics.double() * ratio).to(self.intrinsics.dtype)
        return replace(self, size=size, intrinsics=intrinsics)

    def sized(self, width: int, height: int) -> Cameras:
        """The cameras of pictures of another size, in pixels, with the same vertical field of view.

        Where the shape is another one, the sides show more or less; a panorama keeps all of what it shows.
        """
        ratio = torch.stack([width / self.size[:, 0].double(), height / self.size[:, 1].double()], -1)
        across = torch.where(self.lens == Lens.EQUIRECTANGULAR, ratio[:, 0], ratio[:, 1])
        fx, fy, cx, cy = self.intrinsics.double().unbind(-1)
        middle = 0.5 * width + (cx - 0.5 * self.size[:, 0]) * across
        intrinsics = torch.stack([fx * across, fy * ratio[:, 1], middle, cy * ratio[:, 1]], -1)
        size = torch.tensor([width, height], device=self.size.device).expand_as(self.size).contiguous()
        return replace(self, size=size, intrinsics=intrinsics.to(self.intrinsics.dtype))

    def transformed(self, similarity: npt.ArrayLike | Tensor) -> Cameras:
        """The cameras in another frame: the similarity [4, 4] maps this frame's points there; near scales along.

        Computed in double precision. Differentiable in poses, near and similarity.
        """
        to_new = _tensor(similarity, torch.float64).to(self.camera_to_world.device)
        scale = torch.linalg.det(to_new[:3, :3]) ** (1 / 3)
        pose = to_new[:3, :3] @ self.camera_to_world.double()
        pose = torch.cat([pose[:, :, :3] / scale, pose[:, :, 3:] + to_new[:3, 3:]], dim=-1)
        near = (self.near * scale).to(self.near.dtype)
        return replace(self, camera_to_world=pose.to(self.camera_to_world.dtype), near=near)


def _tensor(values: npt.ArrayLike | Tensor, dtype: torch.dtype) -> Tensor:
    if isinstance(values, Tensor):
        return values.to(dtype)
    return torch.from_numpy(np.array(values)).to(dtype)
