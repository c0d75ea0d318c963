"""Write the JSON schema of technologies: ``python -m nvaudit.technology > technology/schema.json``."""

import sys

from nvaudit.technology.load import schema_text

sys.stdout.buffer.write(schema_text().encode())
