"""What is between a socket and the engine: connecting, polling, filters. The only code with sockets."""
