"""A sweep: audits of one model under every combination of several values of options."""
