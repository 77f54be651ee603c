"""ZO2: fine-tuning a model of which a few blocks are in memory."""
