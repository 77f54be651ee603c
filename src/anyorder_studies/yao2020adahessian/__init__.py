"""AdaHessian, with and without averaging its estimate over rows, and AdamW."""
