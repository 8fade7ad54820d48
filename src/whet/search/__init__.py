"""From limits to a model: what each choice costs, and which choices to make."""
