"""The MNIST files, and the loaders that make batches of them."""
