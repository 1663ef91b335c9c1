"""Loads shared_fixtures.py where tests run: what only hands them out to other processes needs no torch."""


def pytest_configure(config):
    if config.getoption("dist", "no") == "no" or hasattr(config, "workerinput"):
        config.pluginmanager.import_plugin("shared_fixtures")
