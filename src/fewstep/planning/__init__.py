"""From images, or from a teacher, and a time to spend: what to train, how, and for how long."""
