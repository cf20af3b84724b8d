"""PyTorch datasets whose items are whole objects, read through the proxy.

    S3MapDataset(uris)        dataset[i]; any sampler, DistributedSampler among them, decides the order
    S3IterableDataset(uris)   decides the order itself, and splits it over ranks and DataLoader workers

`uris` is an iterable of `s3://bucket/key`, or one `s3://bucket/prefix` as a str: then the objects below it, as they are
listed when the dataset is made, without empty ones whose key ends in "/". Every rank must see the same list.

Invariants
- Over all ranks and workers of an epoch each item comes exactly once, unless `drop_tail` leaves the last few out so that
  each rank gets as many as the others.
- The order of a rank's items (`order()`) depends on seed, epoch and the list only, never on timing, and each worker keeps
  to it; `ordered=False` gives that up for speed. How a DataLoader's batches interleave the workers' items depends on its
  num_workers and batch_size; with a batch size of 1, or None, it is that order. set_epoch() reaches workers that are kept
  (`persistent_workers`): the epoch is in shared memory.
- At most `prefetch` objects and about `prefetch_bytes` are read ahead in each worker process.
- The list is one block of bytes, not a str for each item: forked workers share its pages, since nothing in it is
  reference-counted, and spawned ones get it as one copy.

The client is made for forks and pickles; nothing is connected until an item is asked for.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Callable, NamedTuple, Optional, Union, overload

from ._types import ObjectInfo
from .client import Client

try:
    import torch
    import torch.distributed
    from torch.utils.data import Dataset, IterableDataset, get_worker_info
except ImportError as e:
    raise ImportError(f"s3dlio_proxy.torch needs PyTorch, and it cannot be imported: {e}") from e

__all__ = ["S3IterableDataset", "S3MapDataset", "Sample", "UriList"]

PREFETCH = 16
PREFETCH_BYTES = 256 << 20


class Sample(NamedTuple):
    """What an item is without a transform, and what a transform is given. A DataLoader's default collation makes one
    Sample of lists of them."""

    uri: str
    data: bytes


Transform = Callable[[Sample], Any]


class UriList(Sequence[str]):
    """Many URIs in one block of bytes."""

    def __init__(self, uris: Iterable[str]) -> None:
        self._ends = array("Q")
        text = bytearray()
        for uri in uris:
            if not uri.startswith("s3://"):
                raise ValueError(f"expected s3://bucket/key, got {uri[:200]!r}")
            text += uri.encode("utf-8", "surrogateescape")
            self._ends.append(len(text))
        self._text = bytes(text)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> UriList: ...

    def __getitem__(self, index: Union[int, slice]) -> Union[str, UriList]:
        if isinstance(index, slice):
            return UriList(self[i] for i in range(*index.indices(len(self))))
        i = range(len(self._ends))[index]   # negative ones, and IndexError
        return self._text[self._ends[i - 1] if i else 0:self._ends[i]].decode("utf-8", "surrogateescape")


def _uris_of(client: Client, uris: Union[str, Iterable[str]], where: Optional[Callable[[ObjectInfo], bool]]) -> UriList:
    if isinstance(uris, str):
        found = (o for o in client.list(uris) if o.size or not o.uri.endswith("/"))
        return UriList(o.uri for o in found if where is None or where(o))
    if where is not None:
        raise ValueError("`where` selects from a listing: expected a prefix, s3://bucket/prefix, as a str")
    return UriList(uris)


class S3MapDataset(Dataset):
    """`dataset[i]` is object i of the list: a Sample, or what `transform` makes of it.

    where: of a prefix, only the objects for which it is true. client: Client() of the environment unless given.
    A DataLoader of torch 2 reads a whole batch at once, `prefetch` objects in parallel (__getitems__).
    """

    def __init__(self, uris: Union[str, Iterable[str]], *, client: Optional[Client] = None,
                 transform: Optional[Transform] = None, where: Optional[Callable[[ObjectInfo], bool]] = None,
                 prefetch: int = PREFETCH) -> None:
        if prefetch < 1:
            raise ValueError("expected prefetch to be at least 1")
        self.client = client if client is not None else Client()
        self.transform = transform
        self.prefetch = prefetch
        self.uris = _uris_of(self.client, uris, where)

    def __len__(self) -> int:
        return len(self.uris)

    def __getitem__(self, index: int) -> Any:
        uri = self.uris[int(index)]
        return self._made(Sample(uri, self.client.get(uri)))

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """The items of a batch, in its order."""
        uris = [self.uris[int(i)] for i in indices]
        found = self.client.get_many(uris, ordered=True, threads=min(self.prefetch, max(1, len(uris))))
        return [self._made(Sample(uri, data)) for uri, data in found]

    def _made(self, sample: Sample) -> Any:
        return sample if self.transform is None else self.transform(sample)


class S3IterableDataset(IterableDataset):
    """Iterates over this rank's and this DataLoader worker's share of the objects, reading ahead.

    rank, world_size: of torch.distributed where it is initialised, else of RANK and WORLD_SIZE (torchrun sets them), else
    0 of 1; they are decided when the dataset is made. shuffle: the order is drawn from (seed, epoch) anew for each epoch
    that set_epoch() names. drop_tail: every rank gets floor(len / world_size) items. ordered: items come in the order
    that was drawn; otherwise as they arrive. where, transform, client: as for S3MapDataset.
    """

    def __init__(self, uris: Union[str, Iterable[str]], *, client: Optional[Client] = None,
                 transform: Optional[Transform] = None, where: Optional[Callable[[ObjectInfo], bool]] = None,
                 rank: Optional[int] = None, world_size: Optional[int] = None, shuffle: bool = False, seed: int = 0,
                 drop_tail: bool = False, ordered: bool = True, prefetch: int = PREFETCH,
                 prefetch_bytes: int = PREFETCH_BYTES) -> None:
        if prefetch < 1 or prefetch_bytes < 1:
            raise ValueError("expected prefetch and prefetch_bytes to be at least 1")
        self.rank, self.world_size = _place(rank, world_size)
        self.client = client if client is not None else Client()
        self.transform = transform
        self.shuffle, self.seed = shuffle, seed
        self.drop_tail, self.ordered = drop_tail, ordered
        self.prefetch, self.prefetch_bytes = prefetch, prefetch_bytes
        self.uris = _uris_of(self.client, uris, where)
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        """What set_epoch() said last, 0 before."""
        return int(self._epoch[0])

    def set_epoch(self, epoch: int) -> None:
        """Decides the order of the iterations that begin after this, in this process and in its workers."""
        self._epoch[0] = epoch

    def order(self) -> list[int]:
        """The positions in `uris` of this rank's items in this epoch, in order; its workers take turns."""
        total = len(self.uris)
        if self.shuffle:
            generator = torch.Generator()
            generator.manual_seed((self.seed * 1_000_003 + self.epoch) % (1 << 63))
            everything = torch.randperm(total, generator=generator)
        else:
            everything = torch.arange(total)
        if self.drop_tail:
            everything = everything[:total - total % self.world_size]
        mine: list[int] = everything[self.rank::self.world_size].tolist()
        return mine

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        mine = self.order()
        if worker is not None:
            mine = mine[worker.id::worker.num_workers]
        wanted = (self.uris[i] for i in mine)
        found = self.client.get_many(wanted, ordered=self.ordered, threads=self.prefetch, window=self.prefetch,
                                     max_bytes=self.prefetch_bytes)
        for uri, data in found:
            sample = Sample(uri, data)
            yield sample if self.transform is None else self.transform(sample)


def _place(rank: Optional[int], world_size: Optional[int]) -> tuple[int, int]:
    """(rank, world size), see S3IterableDataset."""
    if (rank is None) != (world_size is None):
        raise ValueError("expected both rank and world_size, or neither")
    if rank is None or world_size is None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        else:
            rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if not 0 <= rank < world_size:
        raise ValueError(f"expected 0 <= rank < world_size, got rank {rank} of {world_size}")
    return rank, world_size
