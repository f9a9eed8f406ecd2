"""The values of `c_uamqp`: enumerations, numbers, values that know their AMQP type, and messages of them."""
