"""Messages: bodies, properties, headers, their encoding. Private; `uamqp_cffi.message` is the public module."""
