"""The losses of part detectors: hand-computed cases, padding, images without anybody."""

from __future__ import annotations

import math

import pytest
import torch

from lib.models.parts_loss import masked_huber, parts_loss


def heat(n=1, k=2, h=2, w=3):
    return {"heatmaps": torch.zeros(n, k, h, w), "mask": torch.ones(n, 1, h, w)}


def test_the_cross_entropy_by_hand():
    targets = heat()
    targets["heatmaps"][0, 1, 0, 0] = 1
    logits = torch.zeros(1, 2, 2, 3)
    logits[0, 1, 0, 0], logits[0, 0, 1, 2] = 2.0, -3.0
    expected = (10 * math.log(2) + math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-3))) / 12
    assert parts_loss(logits, targets).item() == pytest.approx(expected)


def test_a_padded_image_loses_what_it_loses_alone():
    """Each image counts the same, whatever it is padded to and however many vectors are known in the others."""
    torch.manual_seed(0)
    logits, vectors, truth = torch.randn(2, 3, 4, 6), 2 * torch.randn(2, 6, 4, 6), torch.randn(2, 6, 4, 6)
    targets = {"heatmaps": torch.randint(0, 2, (2, 3, 4, 6)).float(), "mask": torch.ones(2, 1, 4, 6)}
    known = torch.randint(0, 2, (2, 3, 4, 6)).float()
    targets["mask"][1, :, 3:], targets["mask"][1, ..., 4:] = 0, 0
    known *= targets["mask"]
    alone = [parts_loss(logits[:1], {name: t[:1] for name, t in targets.items()}),
             parts_loss(logits[1:, :, :3, :4], {name: t[1:, ..., :3, :4] for name, t in targets.items()})]  # fmt: skip
    assert parts_loss(logits, targets).item() == pytest.approx(sum(alone).item() / 2)
    alone = [masked_huber(*(t[:1] for t in (vectors, truth, known))),
             masked_huber(*(t[1:, :, :3, :4] for t in (vectors, truth, known)))]  # fmt: skip
    assert masked_huber(vectors, truth, known).item() == pytest.approx(sum(alone).item() / 2)


def test_huber_and_squares_by_hand():
    predicted, truth, mask = torch.zeros(1, 4, 1, 2), torch.zeros(1, 4, 1, 2), torch.zeros(1, 2, 1, 2)
    predicted[0, 2, 0, 1], predicted[0, 3, 0, 1], mask[0, 1, 0, 1] = 0.5, -3.0, 1
    predicted[0, 0] = torch.inf  # not known
    assert masked_huber(predicted, truth, mask).item() == pytest.approx((0.5 * 0.25 + 3 - 0.5) / 2)
    assert masked_huber(predicted, truth, mask, huber=False).item() == pytest.approx((0.25 + 9) / 2)


def test_nothing_known_is_no_loss_and_no_gradient():
    logits, vectors = torch.randn(2, 2, 2, 3, requires_grad=True), torch.randn(2, 4, 2, 3, requires_grad=True)
    targets = heat(2)
    targets["mask"][:] = 0
    loss = parts_loss(logits, targets) + masked_huber(vectors, torch.zeros(2, 4, 2, 3), torch.zeros(2, 2, 2, 3))
    loss.backward()
    assert loss == 0 and not logits.grad.any() and not vectors.grad.any()
    assert masked_huber(torch.zeros(2, 0, 2, 3), torch.zeros(2, 0, 2, 3), torch.zeros(2, 0, 2, 3)) == 0


def test_half_precision_counts_in_full():
    logits = torch.full((1, 2, 2, 3), -12.0)
    assert parts_loss(logits.half(), heat()).item() == pytest.approx(parts_loss(logits, heat()).item()) != 0
    small, zero, mask = torch.full((1, 2, 2, 3), 1e-4), torch.zeros(1, 2, 2, 3), torch.ones(1, 1, 2, 3)
    assert masked_huber(small.half(), zero, mask).item() == pytest.approx(5e-9, rel=1e-2)


def test_maps_of_another_size_are_named():
    with pytest.raises(ValueError, match=r"heatmaps: .*\(1, 2, 4, 4\), the targets \(1, 2, 2, 3\).*stride"):
        parts_loss(torch.zeros(1, 2, 4, 4), heat())
    with pytest.raises(ValueError, match=r"\(1, 4, 4, 4\), the targets \(1, 4, 2, 3\)"):
        masked_huber(torch.zeros(1, 4, 4, 4), torch.zeros(1, 4, 2, 3), torch.zeros(1, 2, 2, 3))
