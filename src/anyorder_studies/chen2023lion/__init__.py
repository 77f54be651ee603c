"""Lion against AdamW: half the state, and a gain that grows with the batch."""
