import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Only these tests need the plugin, whose import takes 0.4 s in each of pytest's processes."""
    config.pluginmanager.import_plugin("schemathesis.pytest.plugin")
