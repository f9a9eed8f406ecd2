"""What is under the compatible names: the engine's binding, transport and waiting. Private; knows no name of `uamqp`."""
