"""Fine-tuning of a pretrained transformer as a text classifier, for ``anyorder finetune``."""
