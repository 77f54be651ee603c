"""AdAdaGrad: adaptive batch sizes from a test of the gradient noise."""
