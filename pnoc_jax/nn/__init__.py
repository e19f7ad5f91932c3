"""Networks as flax.linen modules; every submodule is explicitly named."""
