"""Where the loss comes from: the part of the audit report, and its renderer."""
