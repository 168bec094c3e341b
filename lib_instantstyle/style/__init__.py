"""How a reference acts: keys and values, hooks on the leaves of a UNet, and the session that puts them there."""
