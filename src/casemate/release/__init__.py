"""Release: how a key leaves a broker. The session's arithmetic, shared by guest and broker, free of I/O."""
