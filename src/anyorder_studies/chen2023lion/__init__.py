"""Lion and AdamW: half the state, and an improvement that increases with the batch size."""
