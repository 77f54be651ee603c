"""AdAdaGrad: batches that grow by a test of the gradient's noise."""
