"""How to wait: the only code with sockets."""
