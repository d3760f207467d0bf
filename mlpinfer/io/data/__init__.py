"""Data files, one module a format, each opened as `mlpinfer.io.data.rows.Rows`."""
