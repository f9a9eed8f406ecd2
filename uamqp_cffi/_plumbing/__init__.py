"""The connections of `c_uamqp`: transports, connections, sessions, links and requests, driven by `Connection.do_work()`."""
