"""Which axis is the batch: followed through the graph with a rule for each operator."""
