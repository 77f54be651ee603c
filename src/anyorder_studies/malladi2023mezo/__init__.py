"""MeZO: fine-tuning with the memory of inference, and the number of steps it needs."""
