"""The clients' parts; `uamqp_cffi.client` is the public module."""
