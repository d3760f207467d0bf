from mlpinfer.model.ops import Array

MAX_WIDTH: int
ROWS: int
IDENTITY: int
RELU: int
LEAKY_RELU: int
TANH: int

def instruction_sets() -> tuple[str, ...]: ...

class PackedNetwork:
    def __new__(
        cls,
        instruction_set: str,
        layers: tuple[tuple[int, int, Array, Array, int, float], ...],
        cut: float,
        /,
    ) -> PackedNetwork: ...
    def labels(self, x: Array, out: Array, batch_size: int, /) -> None: ...
    def logits(self, x: Array, out: Array, batch_size: int, /) -> None: ...
