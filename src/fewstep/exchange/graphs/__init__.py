"""Models and samplers as graphs, what runs them, and the engines that take the place of torch."""
