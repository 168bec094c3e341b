"""InstantStyle for the Stable Diffusion WebUI: style transfer by block-wise IP-Adapter (arXiv:2404.02733)."""

__version__ = "0.2.0"
