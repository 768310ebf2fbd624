"""Makes hostile inputs for `fuzz`, and runs the program on them."""
