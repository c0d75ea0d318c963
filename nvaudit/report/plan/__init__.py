"""The plan of an audit: what its trials could say and would cost."""
