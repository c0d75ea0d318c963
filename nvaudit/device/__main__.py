"""Write the JSON schema of device profiles: ``python -m nvaudit.device > devices/schema.json``."""

import sys

from nvaudit.device.load import schema_text

sys.stdout.buffer.write(schema_text().encode())
