"""Update functions: one pure step of training each."""
