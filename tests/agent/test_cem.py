"""CEM against functions whose maximum is known and against brute force."""

import pytest
import torch

from qtopt.agent.cem import CemConfig, _systematic_modes, maximise
from qtopt.errors import ConfigError

LOW, HIGH = torch.tensor([-1.0, -2.0]), torch.tensor([1.0, 2.0])
USES_POINT = torch.tensor([True, True, False])


def prior(batch: int) -> torch.Tensor:
    return torch.tensor([0.5, 0.45, 0.05]).expand(batch, -1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_finds_each_states_own_peak_and_mode() -> None:
    peaks = torch.tensor([[0.5, -1.0], [-0.7, 1.5], [0.0, 0.0]])
    wanted = torch.tensor([0, 1, 1])

    def score(point: torch.Tensor, mode: torch.Tensor) -> torch.Tensor:
        return -((point - peaks[:, None]) ** 2).sum(-1) - (mode != wanted[:, None]).float()

    config = CemConfig(samples=256, elites=16, iterations=5)
    best = maximise(score, LOW, HIGH, prior(3), USES_POINT, config, generator())
    assert torch.equal(best.mode, wanted)
    assert torch.allclose(best.point, peaks, atol=0.1)


def test_terminate_wins_where_no_point_is_better() -> None:
    def score(point: torch.Tensor, mode: torch.Tensor) -> torch.Tensor:
        return torch.where(mode == 2, 1.0, -point.abs().sum(-1))

    best = maximise(score, LOW, HIGH, prior(4), USES_POINT, CemConfig(), generator())
    assert best.mode.tolist() == [2] * 4
    assert best.score.tolist() == [1.0] * 4


@pytest.mark.parametrize("seed", range(5))
def test_comes_close_to_brute_force_with_the_papers_sizes(seed: int) -> None:
    centres = torch.rand(6, 2, generator=generator(seed)) * (HIGH - LOW) + LOW
    heights = torch.rand(6, generator=generator(seed + 100))

    def bumps(point: torch.Tensor) -> torch.Tensor:
        distance = ((point[..., None, :] - centres) ** 2).sum(-1)
        return (heights * torch.exp(-distance / 0.1)).amax(-1)

    grid = torch.cartesian_prod(torch.linspace(-1, 1, 201), torch.linspace(-2, 2, 401))
    brute_force = float(bumps(grid).max())
    found = maximise(
        lambda point, _: bumps(point),
        LOW,
        HIGH,
        prior(64),
        USES_POINT,
        CemConfig(samples=64, elites=6, iterations=2),
        generator(seed),
    )
    assert float(found.score.max()) > 0.98 * brute_force
    assert float(found.score.mean()) > 0.75 * brute_force


def test_second_iteration_improves_on_random_search_of_the_same_size() -> None:
    def score(point: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return -((point - 0.3) ** 2).sum(-1)

    searched = maximise(score, LOW, HIGH, prior(500), USES_POINT, CemConfig(64, 6, 2), generator()).score.mean()
    random = maximise(score, LOW, HIGH, prior(500), USES_POINT, CemConfig(128, 6, 1), generator()).score.mean()
    assert float(searched) > float(random)


def test_never_leaves_the_box_and_scores_exactly_what_it_returns() -> None:
    scored = []

    def score(point: torch.Tensor, mode: torch.Tensor) -> torch.Tensor:
        assert bool((point >= LOW).all())
        assert bool((point <= HIGH).all())
        value = point.sum(-1) + mode
        scored.append(value)
        return value

    best = maximise(score, LOW, HIGH, prior(3), USES_POINT, CemConfig(), generator())
    assert torch.equal(best.score, torch.cat(scored, 1).amax(1))
    assert torch.allclose(best.score, best.point.sum(-1) + best.mode)


def test_systematic_modes_give_each_mode_its_share_to_within_one() -> None:
    modes = _systematic_modes(prior(50), 64, generator())
    for mode, probability in enumerate([0.5, 0.45, 0.05]):
        counts = (modes == mode).sum(1)
        assert bool(((counts - 64 * probability).abs() <= 1).all())


def test_same_seed_same_result() -> None:
    def score(point: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return point.sum(-1)

    first, second = (maximise(score, LOW, HIGH, prior(2), USES_POINT, CemConfig(), generator(7)) for _ in range(2))
    assert torch.equal(first.point, second.point)


def test_refuses_more_elites_than_samples() -> None:
    with pytest.raises(ConfigError, match="elites is 65, expected 1 to samples"):
        CemConfig(elites=65)
