"""The page in a real browser: selecting, clearing, keys, search, and that it neither calls out nor runs foreign text."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from helixctl.dag import Dag
from helixctl.emit import emit

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed"),
    pytest.mark.timeout(300),
]

_spec = importlib.util.spec_from_file_location("emit_examples", Path(__file__).with_name("test_emit.py"))
