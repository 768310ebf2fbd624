"""The MNIST files and the loaders that yield batches of them."""
