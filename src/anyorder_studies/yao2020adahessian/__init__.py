"""AdaHessian against AdamW, with and without averaging its estimate over rows."""
