"""Push and pull by their definition, person by person, and the pictures in which there is nothing to group."""

from __future__ import annotations

import pytest
import torch

from lib.models.grouping_loss import grouping_loss


def by_definition(tags, cells, kind):
    """The mean over pictures of push and pull, with loops."""
    pushes, pulls = [], []
    for picture, people in zip(tags.flatten(2), cells):
        groups = [[picture[k % len(picture), c] for k, c in enumerate(row) if c >= 0] for row in people.tolist()]
        groups = [torch.stack(group) for group in groups if group]
        means = [group.mean() for group in groups]
        count = len(groups)
        pulls.append(sum((((g - m) ** 2).mean() for g, m in zip(groups, means)), torch.zeros(())) / max(1, count))
        pairs = [a - b for i, a in enumerate(means) for j, b in enumerate(means) if i != j]
        alike = [(1 - d.abs()).clamp(min=0) if kind == "max" else torch.exp(-(d**2)) for d in pairs]
        pushes.append(sum(alike, torch.zeros(())) / (2 * max(1, count * (count - 1))))
    return torch.stack(pushes).mean(), torch.stack(pulls).mean()


def some(seed, n=4, p=5, k=6, channels=6, size=(5, 7)):
    generator = torch.Generator().manual_seed(seed)
    tags = torch.randn(n, channels, *size, generator=generator, requires_grad=True)
    cells = torch.randint(0, size[0] * size[1], (n, p, k), generator=generator)
    cells[torch.rand(cells.shape, generator=generator) < 0.4] = -1
    cells[torch.rand(n, p, generator=generator) < 0.3] = -1
    cells[0, 1:] = -1  # one person
    cells[1] = -1  # nobody
    return tags, cells


@pytest.mark.parametrize("kind", ["exp", "max"])
@pytest.mark.parametrize("channels", [6, 1])
def test_by_definition_with_its_gradient(kind, channels):
    for seed in range(5):
        tags, cells = some(seed, channels=channels)
        ours, expected = grouping_loss(tags, cells, kind), by_definition(tags, cells, kind)
        torch.testing.assert_close(ours, expected, atol=1e-6, rtol=0)
        for one, other in zip(ours, expected):
            gradients = (torch.autograd.grad(loss, tags, retain_graph=True)[0] for loss in (one, other))
            torch.testing.assert_close(*gradients, atol=1e-6, rtol=0)


def test_known_values():
    tags = torch.zeros(1, 1, 1, 4)
    two = torch.tensor([[[0], [1]]])
    assert [float(v) for v in grouping_loss(tags, two)] == [0.5, 0.0]
    assert [float(v) for v in grouping_loss(tags, two, "max")] == [0.5, 0.0]
    far = torch.tensor([[[[0.0, 20.0, 0.0, 0.0]]]])
    assert [float(v) for v in grouping_loss(far, two)] == [0.0, 0.0]
    spread = torch.tensor([[[[0.0, 2.0, 0.0, 0.0]]]]).expand(1, 2, 1, 4)
    assert [float(v) for v in grouping_loss(spread, torch.tensor([[[0, 1]]]))] == [0.0, 1.0]


@pytest.mark.parametrize("kind", ["exp", "max"])
@pytest.mark.parametrize("people", [0, 1])
def test_with_nobody_or_one_person_it_is_finite_and_differentiable(kind, people):
    tags = torch.randn(2, 3, 4, 4, requires_grad=True)
    for cells in (torch.full((2, people, 3), -1), torch.zeros(2, people, 3, dtype=torch.int64)):
        push, pull = grouping_loss(tags, cells, kind)
        assert push == 0 and torch.isfinite(pull)
        (push + pull).backward()
        assert torch.isfinite(tags.grad).all()
        tags.grad = None


def test_what_is_not_there_does_not_count():
    tags, cells = some(0)
    expected = grouping_loss(tags, cells)
    spoilt = tags.detach().clone().flatten(2)
    unread = torch.ones(spoilt.shape, dtype=torch.bool)
    for n, person, k in (cells >= 0).nonzero().tolist():
        unread[n, k, cells[n, person, k]] = False
    spoilt[unread] = torch.inf
    ours = grouping_loss(spoilt.view(tags.shape), cells)
    torch.testing.assert_close(ours, tuple(value.detach() for value in expected))


def test_half_precision_tags_are_summed_in_full():
    tags, cells = some(1)
    push, pull = grouping_loss(tags.bfloat16(), cells)
    assert push.dtype == pull.dtype == torch.float32
    torch.testing.assert_close((push, pull), grouping_loss(tags.bfloat16().float(), cells), atol=1e-6, rtol=0)


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="exp, max, got 'square'"):
        grouping_loss(torch.zeros(1, 2, 3, 3), torch.zeros(1, 1, 2, dtype=torch.int64), "square")
    with pytest.raises(ValueError, match=r"\(1, 4, 3, 3\) and \(1, 1, 2\)"):
        grouping_loss(torch.zeros(1, 4, 3, 3), torch.zeros(1, 1, 2, dtype=torch.int64))
