//! The scheduling state machines of Hedgerow, free of clocks, sockets and files.
