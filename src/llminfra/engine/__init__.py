"""Start, await, watch and stop a real vLLM: as a server, or as an object in this process."""

from ..errors import EngineError
from .offline import offline
from .server import Server, serve

__all__ = ["EngineError", "Server", "offline", "serve"]
