"""Pages that open offline, by plotly and jinja2."""

from nvaudit.report.page.audit import report_html

__all__ = ["report_html"]
