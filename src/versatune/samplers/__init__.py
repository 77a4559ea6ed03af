"""How texts are drawn from a model: on this machine, or from a server."""
