"""What lives on a session besides `session.Session`: links, unsettled deliveries, management requests, tokens."""
