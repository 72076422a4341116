"""Each loss against numbers worked by hand; all of them finite on batches without samples."""

import math
from dataclasses import replace

import pytest
import torch

from dataio.batches import RayBatch
from models.losses.background_points import BackgroundPointsLoss
from models.losses.base import LossConfig, Step, surface_points
from models.losses.color import ColorLoss
from models.losses.color_gradient import ColorGradientLoss
from models.losses.curvature import CurvatureLoss
from models.losses.depth import DepthLoss
from models.losses.distortion import DistortionLoss
from models.losses.eikonal import EikonalLoss
from models.losses.entropy import BetaLoss, EntropyLoss
from models.losses.mask import MaskLoss
from models.losses.normal import NormalLoss
from models.losses.patch_ncc import PatchNccLoss
from models.losses.point_color import PointColorLoss
from models.losses.points import PointsLoss
from models.losses.sdf_depth import SdfDepthLoss
from models.losses.smoothness import SmoothnessLoss
from models.losses.sparsity import SparsityLoss
from models.losses.structure import StructureLoss
from models.losses.tables import TableL1Loss, TableVariationLoss, VoxelVariationLoss
from models.model import Model, Rendering
from models.objective import Objective, Report
from models.samples import DenseSamples, FieldSample, MediumRendering
from tests.support.analytic import RADIUS, rays_at_sphere, sphere_model
from utils.config.parts import parts

LOSSES: dict[str, LossConfig] = {
    "l1": ColorLoss(norm="l1"),
    "l2": ColorLoss(norm="l2"),
    "huber": ColorLoss(norm="huber"),
    "masked": ColorLoss(masked=True),
    "eikonal": EikonalLoss(random_points=5),
    "mask": MaskLoss(),
    "depth": DepthLoss(),
    "sdf_depth": SdfDepthLoss(),
    "smoothness": SmoothnessLoss(),
    "curvature": CurvatureLoss(),
    "distortion": DistortionLoss(),
    "point_color": PointColorLoss(),
    "entropy": EntropyLoss(),
    "beta": BetaLoss(),
    "sparsity": SparsityLoss(),
    "normal": NormalLoss(),
    "points": PointsLoss(),
    "background_points": BackgroundPointsLoss(),
    "structure": StructureLoss(),
    "color_gradient": ColorGradientLoss(),
}


def rendering(count: int, *, color: float = 0.5, opacity: float = 0.25, gradient: float = 2.0) -> Rendering:
    rays = rays_at_sphere(count)
    samples = DenseSamples.from_edges(rays, torch.arange(4.0).expand(count, 4))
    slopes = torch.zeros(count, 3, 3)
    slopes[..., 0] = gradient
    field = FieldSample(torch.zeros(count, 3), torch.zeros(count, 3, 0), slopes)
    return Rendering(
        color=torch.full((count, 3), color),
        opacity=torch.full((count,), opacity),
        depth=torch.zeros(count),
        normal=torch.zeros(count, 3),
        media=[MediumRendering(samples, field, torch.zeros(count, 3, 3), torch.zeros(count, 3))],
    )


def batch(count: int, *, color: float = 0.8, mask: float | None = 1.0) -> RayBatch:
    return RayBatch(
        rays_at_sphere(count),
        torch.full((count, 3), color),
        None if mask is None else torch.full((count,), mask),
        None,
        None,
    )


@pytest.fixture(scope="module")
def model() -> Model:
    return sphere_model()


def test_every_loss_is_tested_here() -> None:
    # test_patch_ncc, test_tables, test_linked_voxels
    elsewhere = {PatchNccLoss, TableL1Loss, TableVariationLoss, VoxelVariationLoss}
    assert set(parts(LossConfig).values()) == {type(loss) for loss in LOSSES.values()} | elsewhere


@pytest.mark.parametrize(("name", "truth"), [("l1", 0.3), ("l2", 0.09), ("huber", 0.25), ("masked", 0.3)])
def test_color(name: str, truth: float, model: Model) -> None:
    assert LOSSES[name](Step(rendering(4), batch(4), model)).item() == pytest.approx(truth, rel=1e-5)


def test_masked_color_counts_the_rays_within_the_mask(model: Model) -> None:
    half = batch(4)
    assert half.mask is not None
    half.mask[:2] = 0
    half.color[:2] = 0
    assert ColorLoss(masked=True)(Step(rendering(4), half, model)).item() == pytest.approx(0.3, rel=1e-5)


def test_eikonal(model: Model) -> None:
    assert EikonalLoss()(Step(rendering(4), batch(4), model)).item() == pytest.approx(1.0, rel=1e-5)
    # The sphere's sdf is exact: random points add nothing.
    assert LOSSES["eikonal"](Step(rendering(4), batch(4), model)).item() == pytest.approx(1.0, rel=1e-5)


def test_mask(model: Model) -> None:
    assert MaskLoss()(Step(rendering(4), batch(4), model)).item() == pytest.approx(1.38629, rel=1e-4)  # -log 0.25
    assert MaskLoss()(Step(rendering(4), batch(4, mask=None), model)).item() == 0
    certain = MaskLoss()(Step(rendering(4, opacity=0.0), batch(4), model))
    assert certain.item() == pytest.approx(6.9078, rel=1e-3)  # cut at 1e-3


# Huber's with delta = 0.1, over delta: |x| - 0.05.
@pytest.mark.parametrize(("norm", "truth"), [("l1", 0.375), ("huber", 0.325)])
def test_depth_counts_the_rays_that_have_one(norm: str, truth: float, model: Model) -> None:
    measured = replace(batch(4), depth=torch.tensor([0.25, 0.5, 0.0, 0.0]))
    loss = DepthLoss.model_validate({"norm": norm})
    assert loss(Step(rendering(4), measured, model)).item() == pytest.approx(truth, rel=1e-5)
    assert loss(Step(rendering(4), batch(4), model)).item() == 0
    assert loss(Step(rendering(4), replace(batch(4), depth=torch.zeros(4)), model)).item() == 0


def test_sdf_depth_is_zero_only_where_the_surface_was_measured() -> None:
    """The exact sdf of a sphere against its true depths, and against depths 0.02 behind them."""
    torch.manual_seed(0)
    model = sphere_model(s=2000.0).eval()
    rays = rays_at_sphere(2000)
    middle = -(rays.origins * rays.directions).sum(-1)
    inside = RADIUS**2 - (rays.origins + middle[:, None] * rays.directions).square().sum(-1)
    # Not at the silhouette: the distance along the ray bends away from a straight line there.
    depth = torch.where(inside > 0.1 * RADIUS**2, middle - inside.clamp_min(0).sqrt(), 0.0)
    seen, shifted = model(rays), torch.where(depth > 0, depth + 0.02, 0.0)
    loss = SdfDepthLoss(band=0.01, rays=2000)
    batches = [replace(batch(2000), depth=d) for d in (depth, shifted)]
    cosine = torch.nn.functional.cosine_similarity(seen.normal, -rays.directions, dim=-1)[depth > 0]
    right, wrong = (loss(Step(seen, b, model)).item() for b in batches)
    assert right < 2e-3
    assert wrong == pytest.approx(0.02 * cosine.mean().item(), rel=0.25)
    assert loss(Step(seen, batch(2000), model)).item() == 0


def test_surface_points_lie_on_the_surface(model: Model) -> None:
    sharp = sphere_model(s=2000.0).eval()
    seen = sharp(rays_at_sphere(300))
    x, real = surface_points(seen, 1000)
    assert real.all()
    assert len(x) == int((seen.opacity > 0.5).sum()) > 50
    torch.testing.assert_close(x.norm(dim=-1), torch.full((len(x),), RADIUS), atol=5e-3, rtol=0)
    assert surface_points(seen, 7)[0].shape == (7, 3)


def test_smoothness_and_curvature_of_a_sphere(model: Model) -> None:
    """Normals of a sphere of radius r turn by 1/r per unit: curvature 1/r^2; the length of a shift across is known."""
    torch.manual_seed(0)
    seen = sphere_model(s=2000.0).eval()(rays_at_sphere(2000))
    curvature = CurvatureLoss(shift=1e-2, points=4000)(Step(seen, batch(0), model))
    assert curvature.item() == pytest.approx(1 / RADIUS**2, rel=0.02)
    smoothness = SmoothnessLoss(shift=1e-2, points=4000)(Step(seen, batch(0), model))
    # The mean over the sphere of the part of a uniform shift that lies across the normal: 0.744 by sampling.
    e = 2 * torch.rand(200_000, 3, dtype=torch.float64) - 1
    n = torch.nn.functional.normalize(torch.randn(200_000, 3, dtype=torch.float64), dim=-1)
    across = (e - (e * n).sum(-1, keepdim=True) * n).norm(dim=-1).mean().item()
    assert smoothness.item() == pytest.approx(1e-2 * across / RADIUS, rel=0.05)


def test_distortion_is_the_double_sum(model: Model) -> None:
    """Against the printed form, sum over all pairs of intervals; dense samples, random depths."""
    rays = rays_at_sphere(5)
    edges = torch.rand(5, 9, generator=torch.Generator().manual_seed(0)).sort(1).values
    tau = torch.rand(5, 8, generator=torch.Generator().manual_seed(1))
    field = FieldSample(tau, torch.zeros(5, 8, 0))
    part = MediumRendering(DenseSamples.from_edges(rays, edges), field, torch.zeros(5, 8, 3), tau)
    seen = Rendering(torch.zeros(5, 3), torch.zeros(5), torch.zeros(5), torch.zeros(5, 3), [part])
    w, middle, length = part.weight(), (edges[:, 1:] + edges[:, :-1]) / 2, edges.diff()
    pairs = (w[:, :, None] * w[:, None] * (middle[:, :, None] - middle[:, None]).abs()).sum((1, 2))
    truth = (pairs + (w.square() * length).sum(1) / 3).mean()
    torch.testing.assert_close(DistortionLoss()(Step(seen, batch(5), model)), truth)


def test_normals_count_as_far_as_they_are_known_and_trusted(model: Model) -> None:
    """Normals along x against ones at 60 degrees: |n - n'|_1 + 1 - n . n', times the opacity, over the known."""
    seen = rendering(4)
    half, root = 0.5, 0.75**0.5
    target = torch.tensor([[half, root, 0.0], [1.0, 0, 0], [0.0, 0, 0], [half, root, 0.0]])
    data = batch(4).with_quantities({"normal": target})
    off = half + root + half  # of the first and the last
    part = seen.media[0]
    sharp = replace(part, tau=torch.full_like(part.tau, 30.0))
    seen = replace(seen, media=[sharp], opacity=torch.full((4,), 0.9))
    assert NormalLoss()(Step(seen, data, model)).item() == pytest.approx(0.9 * 2 * off / 3, rel=1e-5)
    trusted = data.with_quantities({"normal": target, "confidence": torch.tensor([1.0, 1, 1, 0])})
    assert NormalLoss()(Step(seen, trusted, model)).item() == pytest.approx(0.9 * off / 3, rel=1e-5)
    assert NormalLoss()(Step(seen, batch(4), model)).item() == 0


def test_beta(model: Model) -> None:
    """log 0.75 + log 0.25; cut at a thousandth."""
    found = BetaLoss()(Step(rendering(4, opacity=0.25), batch(4), model)).item()
    assert found == pytest.approx(math.log(0.1875), rel=1e-5)
    assert BetaLoss()(Step(rendering(4, opacity=1.0), batch(4), model)).item() == pytest.approx(-6.9088, rel=1e-4)


def test_sparsity(model: Model) -> None:
    """Three samples a ray, of length 1 and density 0, 1 and 2: log 3 + log 9."""
    seen = rendering(4)
    part = replace(seen.media[0], tau=torch.tensor([0.0, 1.0, 2.0]).expand(4, 3))
    found = SparsityLoss()(Step(replace(seen, media=[part]), batch(4), model)).item()
    assert found == pytest.approx(math.log(27), rel=1e-5)


def test_entropy(model: Model) -> None:
    assert EntropyLoss()(Step(rendering(4, opacity=0.5), batch(4), model)).item() == pytest.approx(0.693147, rel=1e-5)
    assert EntropyLoss()(Step(rendering(4, opacity=1.0), batch(4), model)).item() == pytest.approx(0.0079, rel=1e-2)


def test_point_color_counts_each_sample_by_its_weight(model: Model) -> None:
    """Three samples of optical depth ln 2: weights 1/2, 1/4, 1/8; colors 0 against 0.8; no gradient for the depth."""
    seen = rendering(4)
    tau = torch.full((4, 3), math.log(2.0), requires_grad=True)
    color = torch.zeros(4, 3, 3, requires_grad=True)
    seen = replace(seen, media=[replace(seen.media[0], tau=tau, color=color)])
    found = PointColorLoss()(Step(seen, batch(4), model))
    assert found.item() == pytest.approx(0.64 * 7 / 8, rel=1e-5)
    (slope,) = torch.autograd.grad(found, color)
    torch.testing.assert_close(slope[0, :, 0], -2 * 0.8 * torch.tensor([0.5, 0.25, 0.125]) / 12)
    again = PointColorLoss()(Step(seen, batch(4), model))
    assert torch.autograd.grad(again, tau, allow_unused=True) == (None,)


@pytest.mark.parametrize("name", LOSSES)
def test_finite_without_samples(name: str, model: Model) -> None:
    assert torch.isfinite(LOSSES[name](Step(rendering(0), replace(batch(0), patch=8), model)))


def test_the_objective_sums_what_the_schedules_say() -> None:
    color = ColorLoss.model_validate({"weight": {"type": "linear", "start": 0.0, "end": 2.0}, "norm": "l2"})
    objective = Objective(sphere_model(), {"color": color, "eikonal": EikonalLoss.model_validate({"weight": 0.5})})
    rays = batch(32)
    for progress, weight in ((0.0, 0.0), (0.5, 1.0), (1.0, 2.0)):
        objective.update(progress, step=1)
        report = objective(rays)
        assert ("color" in report.terms) == (weight > 0)  # what counts nothing is not computed
        expected = weight * report.terms.get("color", torch.zeros(())) + 0.5 * report.terms["eikonal"]
        torch.testing.assert_close(report.loss, expected)
    assert report.terms["color"].item() == pytest.approx(report.squared_error.item(), rel=1e-5)


def test_parts_of_a_batch_add_up_to_the_whole(model: Model) -> None:
    """Uneven parts, rays of which some are masked: the same report and, to rounding, the same gradients."""
    count = 50
    whole = RayBatch(rays_at_sphere(count), torch.rand(count, 3), (torch.arange(count) % 3 == 0).float())
    whole = replace(whole, depth=torch.linspace(-0.5, 1.0, 50).clamp_min(0))
    losses = {"masked": ColorLoss(masked=True), "mask": MaskLoss(), "eikonal": EikonalLoss(), "depth": DepthLoss()}
    objective = Objective(model.eval(), losses)  # without the jitter of samples, which parts would draw differently
    parameters = [p for p in model.parameters() if p.requires_grad]

    def gradients(parts: list[RayBatch]) -> tuple[Report, list[torch.Tensor]]:
        objective.zero_grad()
        reports = [objective(part) for part in parts]
        for report, part in zip(reports, parts, strict=True):
            (part.share * report.loss).backward()
        found = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        return Report.merged(reports, [part.share for part in parts]), found

    parts_of_it = whole.split(20)
    assert [len(part) for part in parts_of_it] == [20, 20, 10] and whole.split(None) == whole.split(50) == [whole]
    (one, expected), (many, found) = gradients([whole]), gradients(parts_of_it)
    torch.testing.assert_close(many.loss, one.loss.detach())
    torch.testing.assert_close(many.terms, one.terms)
    torch.testing.assert_close(many.opacity, one.opacity)
    assert many.samples == one.samples
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", ["l1", "masked", "mask", "depth", "entropy", "beta"])
def test_a_weight_counts_a_ray_as_often(name: str, model: Model) -> None:
    """Of losses per ray: weights 2 and 0, in the mean 1, are the first half of the rays twice."""
    torch.manual_seed(0)
    seen = rendering(4)
    varied = replace(seen, color=torch.rand(4, 3), opacity=torch.rand(4), depth=torch.rand(4))
    full = replace(batch(4, mask=0.7), depth=torch.rand(4) + 0.1)
    twice = replace(full, weight=torch.tensor([2.0, 2.0, 0.0, 0.0]))
    again = torch.tensor([0, 1, 0, 1])
    chosen = replace(seen, color=varied.color[again], opacity=varied.opacity[again], depth=varied.depth[again])
    expected = LOSSES[name](Step(chosen, full[again], model))
    torch.testing.assert_close(LOSSES[name](Step(varied, twice, model)), expected)
