"""MeZO: fine-tuning with the memory of inference, and how many more steps it takes."""
