"""The learning rate that falls when the loss stays: by hand, and from a saved state."""

from models.optimizers.plateau import Plateau, PlateauConfig

CONFIG = PlateauConfig(factor=0.5, window=2, patience=2, threshold=0.1, least=0.2)


def test_the_rate_falls_after_patience_and_not_below_the_least() -> None:
    plateau, scales = Plateau(CONFIG), []
    # Windows of two: means 10, 5 (new best), then five that are less than 10 % better, then a new best.
    for loss in (10, 10, 4, 6, 5, 5, 4.8, 4.8, 5, 5, 5, 5, 5, 5, 5, 5, 1, 1):
        plateau.observe(float(loss))
        scales.append(plateau.scale)
    assert scales[1::2] == [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2]


def test_a_saved_plateau_goes_on_where_it_was() -> None:
    losses = [3.0, 2.0, 2.5, 2.5, 2.5, 2.5, 2.5, 2.4, 2.5]
    one, two = Plateau(CONFIG), Plateau(CONFIG)
    for loss in losses:
        one.observe(loss)
    for loss in losses[:5]:
        two.observe(loss)
    other = Plateau(CONFIG)
    other.load_state_dict(two.state_dict())
    for loss in losses[5:]:
        other.observe(loss)
    assert one.state_dict() == other.state_dict()
