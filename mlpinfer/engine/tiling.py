"""How rows are cut: into batches, as asked for, and batches into tiles that fit the cache.

Boundaries depend on the batch size alone, never on the number of workers: which products are
computed together, and so the last bits of every result, is the same however the work is shared.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator


class Tiles:
    """The tiles of all batches, numbered in order.

    Parameters
    ----------
    rows : int
        Rows in all.
    batch_size : int
        Rows in a batch; the last one may be short.
    tile_rows : int
        Most rows in a tile. A batch is cut into the fewest tiles, as even as can be.

    Attributes
    ----------
    most_rows : int
        No tile has more.
    """

    def __init__(self, rows: int, batch_size: int, tile_rows: int) -> None:
        self._batch_size = batch_size
        self._full, self._tail = divmod(rows, batch_size)
        self.most_rows = min(batch_size, tile_rows)
        self._in_batch = -(-batch_size // tile_rows)
        self._in_tail = -(-self._tail // tile_rows)

    @classmethod
    def of_batches(cls, rows: int, batch_size: int, most: int) -> Tiles:
        """Cut rows into tiles of up to `most` rows: whole batches, or parts of one that is larger."""
        unit = batch_size * max(1, most // batch_size)
        return cls(rows, unit, min(unit, most))

    def __len__(self) -> int:
        return self._full * self._in_batch + self._in_tail

    def spans(self, begin: int, end: int) -> Iterator[slice]:
        """Yield the rows of tiles `begin` to `end`."""
        size, count = self._batch_size, self._in_batch
        for number in range(begin, min(end, self._full * count)):
            batch, tile = divmod(number, count)
            yield slice(batch * size + tile * size // count, batch * size + (tile + 1) * size // count)
        at, size = self._full * size, self._tail
        for number in range(max(begin, self._full * count), end):
            tile = number - self._full * count
            yield slice(at + tile * size // self._in_tail, at + (tile + 1) * size // self._in_tail)

    def shares(self, workers: int) -> list[tuple[int, int]]:
        """Return the first and last + 1 tile of each of at most `workers` contiguous shares."""
        workers = max(1, min(workers, len(self)))
        bounds = [len(self) * worker // workers for worker in range(workers + 1)]
        return list(itertools.pairwise(bounds))
