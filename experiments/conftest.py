"""The experiments' tests share fixtures and skips with those of the package."""

from tests.conftest import mnist, network, pytest_collection_modifyitems

__all__ = ["mnist", "network", "pytest_collection_modifyitems"]
