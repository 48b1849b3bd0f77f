"""The losses of part detectors (DeeperCut, arXiv:1605.03170): each image's mean over what counts in it, then over the batch.

So a batch of one has the published loss, "the sum over the number of weights that are not zero", and an image weighs the same
whatever it is padded to and whoever is in it.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, huber_loss, mse_loss

from lib.models.maps_loss import check_targets


def parts_loss(logits: Tensor, targets: dict[str, Tensor]) -> Tensor:
    """Cross entropy of heatmaps, over all keypoints and the cells that count; 0 for an image without such a cell.

    Args:
        logits: (N, K, h, w), before the sigmoid.
        targets: "heatmaps" (N, K, h, w) in 0..1 and "mask" (N, 1, h, w), 1 where a cell counts, 0 where not.

    Returns:
        float32 scalar.

    Raises:
        ValueError: shapes differ.
    """
    truth, mask = targets["heatmaps"], targets["mask"]
    check_targets("heatmaps", logits, truth)
    # logarithms of small numbers vanish in half precision
    error = binary_cross_entropy_with_logits(logits.float(), truth.float(), reduction="none") * mask
    return (error.sum(dim=(1, 2, 3)) / (mask.sum(dim=(1, 2, 3)) * logits.shape[1]).clamp(min=1)).mean()


def masked_huber(predicted: Tensor, truth: Tensor, mask: Tensor, huber: bool = True) -> Tensor:
    """Huber loss (threshold 1) of vector maps where they are known; 0 for an image in which nothing is.

    Args:
        predicted, truth: (N, 2M, h, w) x, y of M vectors.
        mask: (N, M, h, w), 1 where a vector counts, 0 where not.
        huber: False for the squared error instead.

    Returns:
        float32 scalar.

    Raises:
        ValueError: shapes differ.
    """
    check_targets("vectors", predicted, truth)
    image, vector, y, x = mask.nonzero(as_tuple=True)
    # few are known, and those alone are taken: what the others miss need not even be finite
    pairs = mask.shape[1], 2
    found, wanted = (maps.unflatten(1, pairs)[image, vector, :, y, x].float() for maps in (predicted, truth))
    error = (huber_loss if huber else mse_loss)(found, wanted, reduction="none").mean(dim=1)
    count = mask.count_nonzero(dim=(1, 2, 3))
    return (error / count[image]).sum() / len(mask)
