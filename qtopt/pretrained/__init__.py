"""A trained policy that ships with the package; give the word ``pretrained`` wherever a checkpoint is taken."""
