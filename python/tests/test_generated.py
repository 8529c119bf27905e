"""The committed code is what the API's definition gives."""

from __future__ import annotations

import importlib.util
import subprocess
import tempfile
import unittest
from pathlib import Path

PYTHON = Path(__file__).parent.parent
FOLDER = Path("skerry_jobs/_proto")


class GeneratedTest(unittest.TestCase):
    @unittest.skipUnless(importlib.util.find_spec("grpc_tools"), "there is no grpcio-tools for this Python")
    def test_generating_again_gives_the_same(self) -> None:
        with tempfile.TemporaryDirectory() as out:
            subprocess.run([PYTHON / "generate", out], check=True)
            self.assertEqual(_contents(Path(out)), _contents(PYTHON), "run python/generate, and commit what it wrote")


def _contents(root: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in (root / FOLDER).iterdir() if file.is_file()}
