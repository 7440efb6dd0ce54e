import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from app.infrastructure.settings import Settings


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting from the environment, and no .env in the working directory."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def logging_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("COLUMNS", "80")
    root, configuration = logging.getLogger(), structlog.get_config()
    loggers = [root, *(logging.getLogger(name) for name in list(logging.root.manager.loggerDict))]
    handlers, levels = root.handlers, [(logger, logger.level) for logger in loggers]
    yield
    root.handlers = handlers
    for logger, level in levels:
        logger.setLevel(level)
    structlog.configure(**configuration)
