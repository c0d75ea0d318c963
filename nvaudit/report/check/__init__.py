"""What a matrix of audits found."""
