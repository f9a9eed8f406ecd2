"""The binding of the engine: connections without a transport, records, AMQP values, sections of messages."""
