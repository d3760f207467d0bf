from hypothesis import given
from hypothesis import strategies as st

from mlpinfer.engine.tiling import Tiles


@given(
    rows=st.integers(0, 500), batch=st.integers(1, 200), tile=st.integers(1, 100), workers=st.integers(1, 9)
)
def test_every_row_once_in_order(rows, batch, tile, workers):
    tiles = Tiles(rows, batch, tile)
    shares = tiles.shares(workers)
    assert len(shares) <= workers
    spans = [span for share in shares for span in tiles.spans(*share)]
    assert [row for span in spans for row in range(span.start, span.stop)] == list(range(rows))
    assert spans == list(tiles.spans(0, len(tiles)))
    for span in spans:
        assert 0 < span.stop - span.start <= min(tile, batch)
        assert span.start // batch == (span.stop - 1) // batch  # no tile spans two batches


@given(batch=st.integers(1, 2000), tile=st.integers(1, 600))
def test_tiles_of_a_batch_are_even(batch, tile):
    sizes = [span.stop - span.start for span in Tiles(batch, batch, tile).spans(0, -(-batch // tile))]
    assert max(sizes) - min(sizes) <= 1


def test_no_rows_are_no_tiles():
    assert len(Tiles(0, 10, 10)) == 0
    assert list(Tiles(0, 10, 10).spans(0, 0)) == []
