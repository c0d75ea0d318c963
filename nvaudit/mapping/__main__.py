"""Write the JSON schema of manifests: ``python -m nvaudit.mapping > FILE``."""

import sys

from nvaudit.mapping.manifest import schema_text

sys.stdout.buffer.write(schema_text().encode())
