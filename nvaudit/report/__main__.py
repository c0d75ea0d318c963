"""Write the JSON schema of reports: ``python -m nvaudit.report > nvaudit/report/report.schema.json``."""

import sys

from nvaudit.report.result import schema_text

sys.stdout.buffer.write(schema_text().encode())
