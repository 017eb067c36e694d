"""Real frameworks with their real instrumentors, against a model on loopback. Opt-in: it installs packages."""
