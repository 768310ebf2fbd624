"""Run the examples for other frameworks in `docs/other-frameworks.md`.

python tests/schedules/origins/examples.py
"""

import os
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]


def main() -> int:
    text = (REPOSITORY / "docs" / "other-frameworks.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(import (\w+)\n.*?)```", text, re.DOTALL)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "KERAS_BACKEND": "torch"}
    failed = 0
    for example, framework in examples:
        code = subprocess.run([sys.executable, "-c", example], env=environment, check=False).returncode
        print(framework, "failed" if code else "passed")
        failed += code != 0
    return int(failed > 0 or len(examples) != 3)


if __name__ == "__main__":
    sys.exit(main())
