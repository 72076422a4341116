"""Multi-layer perceptrons and their activations, with input gradients."""
