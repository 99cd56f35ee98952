"""GAN inversion: from a picture to a code of the generator that draws it."""
