"""Write the JSON schema of every kind of report into a folder: ``python -m nvaudit.report FOLDER``."""

import sys
from pathlib import Path

from nvaudit.report.kinds import KINDS, schema_text

for kind in KINDS:
    Path(sys.argv[1], f"{kind.name}.schema.json").write_bytes(schema_text(kind).encode())
