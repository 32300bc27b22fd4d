"""Where the site's sources lie."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "outputs" / "examples"
PARTS = Path(__file__).parent / "parts"
