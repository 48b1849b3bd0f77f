"""Every batch of a data set, as training takes them."""

from torch.utils.data import DataLoader

from lib.data.dataset import collate, worker_init


def everything(data, workers=0, context=None, batch_size=2) -> list[dict]:
    """The batches of two epochs."""
    loader = DataLoader(data, batch_size, num_workers=workers, collate_fn=collate, worker_init_fn=worker_init,
                        multiprocessing_context=context, persistent_workers=workers > 0)  # fmt: skip
    batches = []
    for epoch in range(2):
        data.set_epoch(epoch)
        batches += list(loader)
    return batches
