"""Byte pipes between socket and engine, without I/O."""
