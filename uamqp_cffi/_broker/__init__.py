"""The embedded broker's parts: an engine in the server role, queues, scripts. Private; `uamqp_cffi.broker` is the public module."""
