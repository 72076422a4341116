"""What turns a trained model into pictures: frames, the traced surface, the baked lattice, assets."""
