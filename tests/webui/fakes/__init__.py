"""A WebUI in the same process: small fakes of `modules`, under which the real script and the real gradio run.

Each file stands for one or a few of the WebUI's own and names them. `a1111.A1111` puts them together; another WebUI of
the family is a subclass that replaces the parts that differ and answers `modules()` with its own.
"""

from .a1111 import A1111

__all__ = ["A1111"]
