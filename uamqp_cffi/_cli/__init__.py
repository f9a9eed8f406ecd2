"""The command line's parts; `uamqp_cffi.cli` is the command."""
