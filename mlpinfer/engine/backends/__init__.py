"""Array backends: NumPy on the CPU, CuPy on a GPU."""
