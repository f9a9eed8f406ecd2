"""What is under the compatible names: the binding of the engine, plans, filters and drivers. Private."""
