"""Messages about transfers to a STOMP broker, in FTS3's form: what Rucio and WLCG's monitoring listen to."""
