"""A method that is new in every part: each is defined here alone, named in one YAML, and trained by the usual run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

import pytest
import torch
from torch import Tensor, nn

import utils.config.parts
from dataio.cameras import Rays
from dataio.formats.transforms import TransformsData
from dataio.quantities import base as quantities
from dataio.scene import DataConfig, Scene
from dataio.views import Views
from engine import experiment, resume
from engine.run import Run
from models.appearance.base import Appearance, AppearanceConfig, PerImage, PerImageConfig
from models.bounds.base import Bounds, BoundsConfig
from models.capabilities import DENSITY, Offer
from models.encodings.base import Encoding, EncodingConfig
from models.fields.base import Field, FieldConfig
from models.inits.base import Distance, InitConfig
from models.losses.base import DataNeeds, LossConfig, Step
from models.samples import FieldSample, Points
from models.shading.base import Shading, ShadingConfig
from tests.support import made_data
from utils import distributed
from utils.config.parts import Choice
from utils.config.schedule import ScheduleConfig
from utils.errors import InputError

FUZZ = Offer("fuzz", "something fuzzy")  # an offer that nobody has heard of
TOY = """
data: {{type: toy_folder, path: {data}, holdout: 4, center: [0, 0, 0], radius: 2}}
model:
  shading: {{type: toy_gray}}
  foreground:
    bounds: {{type: toy_slab, height: 0.5}}
    sampler: {{type: stratified, samples: 8}}
    field: {{type: toy_blobs, encoding: {{type: toy_squares}}}}
    appearance: {{type: toy_heat, per_image: toy_gain}}
    opacity: density
losses:
  color: {{type: color, norm: l2, weight: {{type: toy_saw, teeth: 4}}}}
  fuzz: {{type: toy_loss, weight: 0.1}}
optimizer: {{lr: 1e-2}}
train: {{steps: 6, rays: 32, validations: 0, log_every: 1}}
device: cpu
"""


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = utils.config.parts._registry
    monkeypatch.setattr(utils.config.parts, "_registry", {kind: dict(of) for kind, of in registry.items()})
    monkeypatch.setattr(quantities, "_registry", dict(quantities.quantities()))
    define()


def define() -> None:
    """Register every toy."""

    class FolderData(DataConfig):
        type: Literal["toy_folder"] = "toy_folder"

        @classmethod
        def recognizes(cls, path: Path) -> bool:
            return (path / "toy.txt").is_file()

        def parse(self) -> Views:
            views = TransformsData(path=self.path).parse()
            return replace(views, names=[f"toy/{name}" for name in views.names])

    class SquaresConfig(EncodingConfig):
        type: Literal["toy_squares"] = "toy_squares"
        offers: ClassVar[frozenset[Offer]] = frozenset({FUZZ})

        def build(self, dimensions: int = 3) -> Encoding:
            return Squares()

    class BlobsConfig(FieldConfig):
        type: Literal["toy_blobs"] = "toy_blobs"
        value_kind: ClassVar[Offer] = DENSITY
        encoding: Choice[EncodingConfig]

        def build(self) -> Field:
            return Blobs(self.encoding.build())

    class HeatConfig(AppearanceConfig):
        type: Literal["toy_heat"] = "toy_heat"

        @property
        def channels(self) -> int:
            return 5

        def build(self, features: int, *, gradient: bool) -> Appearance:
            return Heat()

    class GainConfig(PerImageConfig):
        type: Literal["toy_gain"] = "toy_gain"

        def build(self, cameras: int) -> PerImage:
            return Gain(cameras)

    class SlabConfig(BoundsConfig):
        type: Literal["toy_slab"] = "toy_slab"
        height: float = 1.0

        def build(self) -> Bounds:
            return Slab(self.height)

    class GrayConfig(ShadingConfig):
        type: Literal["toy_gray"] = "toy_gray"

        @property
        def channels(self) -> int:
            return 5

        def build(self) -> Shading:
            return Gray()

    class SawSchedule(ScheduleConfig):
        type: Literal["toy_saw"] = "toy_saw"
        teeth: int

        def at_share(self, p: float) -> float:
            return 1 + p * self.teeth % 1

    class ToyLoss(LossConfig):
        type: Literal["toy_loss"] = "toy_loss"
        needs: ClassVar[frozenset[Offer]] = frozenset({FUZZ})

        @property
        def data_needs(self) -> DataNeeds:
            return DataNeeds(pixels=("mask",), views=2)

        def __call__(self, step: Step) -> Tensor:
            assert step.views is not None and step.views.beside(step.batch.rays.camera, 2).shape[1] == 2
            return step.mean(step.rendering.opacity)

    class CubeInit(InitConfig):
        type: Literal["toy_cube"] = "toy_cube"

        def distance(self, scene: Scene) -> Distance:
            return lambda x: x.abs().amax(-1) - 0.4


class Squares(Encoding):
    width = 3

    def forward(self, x: Tensor) -> Tensor:
        return x.square()


class Blobs(Field):
    features = 2

    def __init__(self, encoding: Encoding) -> None:
        super().__init__()
        self.encoding, self.size = encoding, nn.Parameter(torch.ones(3))

    def value(self, x: Tensor) -> Tensor:
        return 4 - (self.encoding(x) * self.size).sum(-1) * 8

    def forward(self, at: Points) -> FieldSample:
        return FieldSample(self.value(at.x), at.x[..., :2])


class Heat(Appearance):
    def __init__(self) -> None:
        super().__init__()
        self.palette = nn.Parameter(torch.zeros(2, 5))

    def forward(self, at: Points, features: Tensor, normal: Tensor | None) -> Tensor:
        return torch.sigmoid(features @ self.palette)


class Gain(PerImage):
    def __init__(self, cameras: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(cameras))

    def color(self, color: Tensor, at: Points) -> Tensor:
        return color if at.camera is None else color * self.gain[at.camera][..., None]


class Slab(Bounds):
    def __init__(self, height: float) -> None:
        super().__init__()
        self.height = height

    def clip(self, rays: Rays) -> Rays:
        along = torch.where(rays.directions[:, 2].abs() < 1e-6, 1e-6, rays.directions[:, 2])
        ends = torch.stack([(h - rays.origins[:, 2]) / along for h in (-self.height, self.height)])
        near = torch.maximum(rays.near, ends.amin(0))
        return replace(rays, near=near, far=torch.maximum(near, ends.amax(0)))

    def contains(self, x: Tensor) -> Tensor:
        return x[..., 2].abs() <= self.height


class Gray(Shading):
    def forward(self, sums: Tensor, directions: Tensor) -> Tensor:
        return sums[:, :3] * sums[:, 3:4]


def written(folder: Path) -> Path:
    made_data.transforms(folder / "data", 8)
    (folder / "data/toy.txt").write_text("")
    (folder / "toy.yaml").write_text(TOY.format(data=folder / "data"), "utf-8")
    return folder / "toy.yaml"


def test_a_method_of_toys_trains_resumes_and_opens(tmp_path: Path) -> None:
    config = experiment.read_config(written(tmp_path))
    said = list(resume.warnings(config, config.data.load()))
    assert any("losses.fuzz asks for masks, which these data lack" in line for line in said)
    run = resume.open_trainer(config, tmp_path / "run", distributed.setup("cpu"), allow_config_change=False)
    assert run is not None
    before = {name: value.clone() for name, value in run.objective.model.state_dict().items()}
    while run.progress < 1:
        run.step_once()
    run.close()
    run.finish()
    opened = Run.open(tmp_path / "run", device="cpu")
    assert opened.step == 6
    for part in ("field.size", "appearance.palette", "per_image.gain"):
        assert not torch.equal(opened.model.get_parameter(f"foreground.{part}"), before[f"foreground.{part}"]), part
    color = opened.surface_color(torch.zeros(2, 3), torch.tensor([[0.0, 0, 1]] * 2))
    assert color.shape == (2, 3)


def test_offers_of_toys_are_refused_in_their_own_words(tmp_path: Path) -> None:
    path = written(tmp_path)
    with pytest.raises(InputError, match=r"losses\.fuzz needs something fuzzy \(encoding.type: toy_squares\)"):
        experiment.read_config(path, ["model.foreground.field={type: radiance, encoding: frequency}"])
    with pytest.raises(InputError, match=r"foreground.appearance gives 3 channels, shading \(type: toy_gray\) takes 5"):
        experiment.read_config(path, ["model.foreground.appearance={type: mlp}"])


def test_a_toy_shape_at_first(tmp_path: Path) -> None:
    overrides = ["model.foreground.field.init=toy_cube", "data={type: procedural, views: 3, size: 16}"]
    config = experiment.read_config("configs/neus_hash.yaml", overrides)
    field = config.model.foreground.field.build()
    torch.manual_seed(0)
    field.reset_parameters()
    field.initialize(config.data.load())
    x = torch.rand(2000, 3) * 1.2 - 0.6
    with torch.no_grad():
        off = (field.value(x) - (x.abs().amax(-1) - 0.4)).abs()
    assert off.mean() < 0.01
