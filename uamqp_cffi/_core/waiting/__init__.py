"""How callers wait: plans, inboxes, locks, interrupts. Nothing here knows AMQP."""
